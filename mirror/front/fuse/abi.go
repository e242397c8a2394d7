package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"

	"hapair/mirror/block"
)

// The kernel's protocol, include/uapi/linux/fuse.h, as far as one file needs
// it. Numbers are in the byte order of the machine.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opInit        = 26
	opDestroy     = 38
	opBatchForget = 42
	opFallocate   = 43
)

const (
	headBytes       = 40 // fuse_in_header
	ioHeadBytes     = 40 // fuse_read_in, fuse_write_in
	replyHeadBytes  = 16 // fuse_out_header
	initReplyBytes  = 64
	attrReplyBytes  = 104
	openReplyBytes  = 16
	fallocBytes     = 32
	rootNode        = 1
	protocolMajor   = 7
	protocolMinor   = 38 // what this file was written against
	protocolMinimum = 28 // max_pages

	initAsyncRead  = 1 << 0
	initBigWrites  = 1 << 5
	initAsyncDIO   = 1 << 15
	initAbortError = 1 << 21
	initMaxPages   = 1 << 22

	openDirectIO       = 1 << 0
	openNoFlush        = 1 << 5
	openParallelWrites = 1 << 6

	fallocKeepSize  = 1
	fallocPunchHole = 2
	fallocZeroRange = 16
)

var native = binary.NativeEndian

// errProtocol: what came from /dev/fuse is not what its header promises.
var errProtocol = errors.New("malformed FUSE request")

// message is one request of the kernel.
type message struct {
	op     uint32
	unique uint64
	node   uint64
	pid    uint32
	body   []byte // after the header; for a write without the data
}

// parseMessage takes a request apart. head is what a read of n bytes left in
// the header's buffer (headBytes + ioHeadBytes, cut to n).
func parseMessage(head []byte, n int) (message, error) {
	if len(head) < headBytes {
		return message{}, fmt.Errorf("%d bytes, a header has %d: %w", len(head), headBytes, errProtocol)
	}
	if said := native.Uint32(head); int64(said) != int64(n) {
		return message{}, fmt.Errorf("header says %d bytes, %d arrived: %w", said, n, errProtocol)
	}
	return message{
		op:     native.Uint32(head[4:]),
		unique: native.Uint64(head[8:]),
		node:   native.Uint64(head[16:]),
		pid:    native.Uint32(head[32:]),
		body:   head[headBytes:],
	}, nil
}

// transfer is the body of a read or write.
type transfer struct {
	offset uint64
	length uint32
}

func parseTransfer(m message) (transfer, error) {
	if len(m.body) < ioHeadBytes {
		return transfer{}, fmt.Errorf("read or write with a body of %d bytes: %w", len(m.body), errProtocol)
	}
	return transfer{offset: native.Uint64(m.body[8:]), length: native.Uint32(m.body[16:])}, nil
}

// hole is the body of a fallocate.
type hole struct {
	offset, length uint64
	mode           uint32
}

func parseHole(m message) (hole, error) {
	if len(m.body) < fallocBytes {
		return hole{}, fmt.Errorf("fallocate with a body of %d bytes: %w", len(m.body), errProtocol)
	}
	return hole{offset: native.Uint64(m.body[8:]), length: native.Uint64(m.body[16:]), mode: native.Uint32(m.body[24:])}, nil
}

// initReply answers the kernel's greeting, or says why it cannot.
func initReply(m message) ([]byte, error) {
	if len(m.body) < 16 {
		return nil, fmt.Errorf("init with a body of %d bytes: %w", len(m.body), errProtocol)
	}
	major, minor, flags := native.Uint32(m.body), native.Uint32(m.body[4:]), native.Uint32(m.body[12:])
	const want = initAsyncRead | initBigWrites | initAsyncDIO | initMaxPages
	if major != protocolMajor || minor < protocolMinimum || flags&want != want {
		return nil, fmt.Errorf("kernel speaks FUSE %d.%d with flags %#x, needed are %d.%d and %#x",
			major, minor, flags, protocolMajor, protocolMinimum, want)
	}
	b := make([]byte, initReplyBytes)
	native.PutUint32(b, protocolMajor)
	native.PutUint32(b[4:], min(minor, protocolMinor))
	native.PutUint32(b[12:], want|flags&initAbortError)
	native.PutUint16(b[16:], backgroundMax)
	native.PutUint16(b[18:], backgroundMax) // congestion threshold: never
	native.PutUint32(b[20:], block.MaxTransferBytes)
	native.PutUint32(b[24:], 1) // time granularity, ns
	native.PutUint16(b[28:], pagesMax)
	return b, nil
}

// attrReply describes the file.
func attrReply(g block.Geometry) []byte {
	b := make([]byte, attrReplyBytes)
	native.PutUint64(b, attrValidSeconds)
	a := b[16:]
	native.PutUint64(a, rootNode)
	native.PutUint64(a[8:], uint64(g.SizeBytes))
	native.PutUint64(a[16:], uint64(g.SizeBytes/512))
	native.PutUint32(a[60:], 0o100600) // a regular file, root's alone
	native.PutUint32(a[64:], 1)        // links
	native.PutUint32(a[80:], uint32(g.LogicalBlockBytes))
	return b
}

// openReply makes every transfer direct, lets writes run side by side, and
// wants no word of closed descriptors: at the end of a killed process nobody
// would answer it. Kernels before 7.35 ignore the bit they do not know.
func openReply() []byte {
	b := make([]byte, openReplyBytes)
	native.PutUint32(b[8:], openDirectIO|openNoFlush|openParallelWrites)
	return b
}

// statfsReply tells the one thing of it that matters: the loop device takes
// the block size for the granularity of discards.
func statfsReply(g block.Geometry) []byte {
	b := make([]byte, 80)
	native.PutUint32(b[40:], uint32(max(g.PhysicalBlockBytes, g.LogicalBlockBytes)))
	native.PutUint32(b[48:], uint32(max(g.PhysicalBlockBytes, g.LogicalBlockBytes)))
	return b
}
