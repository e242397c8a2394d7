package wire

import "crypto/sha256"

// DigestsOf is how many bytes the digests of a range take.
func DigestsOf(length int64) int64 {
	return (length + VerifyBlockBytes - 1) / VerifyBlockBytes * DigestBytes
}

// AppendDigests appends the digest of each block of data to dst; the last block
// may be shorter. SHA-256: that two blocks have one digest proves that they are
// equal, whoever chose what is in them. A crc32c would only make it likely.
func AppendDigests(dst, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), VerifyBlockBytes)
		sum := sha256.Sum256(data[:n])
		dst, data = append(dst, sum[:]...), data[n:]
	}
	return dst
}
