package wire

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func TestDigestPerBlock(t *testing.T) {
	data := make([]byte, 2*VerifyBlockBytes+512)
	data[VerifyBlockBytes] = 1
	got := AppendDigests([]byte("x"), data)[1:]
	if len(got) != 3*DigestBytes {
		t.Fatalf("%d bytes for two blocks and a rest", len(got))
	}
	for i, part := range [][]byte{data[:VerifyBlockBytes], data[VerifyBlockBytes : 2*VerifyBlockBytes], data[2*VerifyBlockBytes:]} {
		if want := sha256.Sum256(part); !bytes.Equal(got[i*DigestBytes:(i+1)*DigestBytes], want[:]) {
			t.Errorf("block %d has another digest", i)
		}
	}
}

func BenchmarkDigests256K(b *testing.B) {
	data := make([]byte, 256<<10)
	sums := make([]byte, 0, len(data)/VerifyBlockBytes*DigestBytes)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		sums = AppendDigests(sums[:0], data)
	}
}
