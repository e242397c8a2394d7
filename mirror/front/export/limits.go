package export

import (
	"time"

	"hapair/mirror/block"
)

// Bounds of one server. The largest amount of payload it holds is
// connectionsMax × payloadBytesMax = 640 MiB, reached only if every client
// sends the longest requests at once; memory is taken as requests come.
const (
	// connectionsMax bounds the clients of one export. A client over it is
	// disconnected before it is listened to. fio, nbdcopy and QEMU open at
	// most 16.
	connectionsMax = 16

	// requestBytesMax is the longest read or write: what a client may send
	// when it has not asked for the block size constraints.
	requestBytesMax = 32 << 20

	// rangeBytesMax is the longest piece of a trim or write-zeroes handed to
	// the Handler at once; the protocol allows requests of 4 GiB.
	rangeBytesMax = 128 << 20

	// piecesMax is the number of pieces of the longest request of any kind:
	// 32 of 1 MiB for reads and writes, 32 of 128 MiB for ranges.
	piecesMax = 32

	// commandsMax bounds the requests in flight on one connection; its
	// reader waits when it is reached.
	commandsMax = 256

	// payloadBytesMax bounds the data in flight on one connection. A read
	// holds all its pieces until it is answered, so one of the longest must
	// fit beside others.
	payloadBytesMax = requestBytesMax + 8<<20

	// readBufferBytes is how much a reader takes off the socket at once.
	readBufferBytes = 128 << 10

	// optionBytesMax bounds the data of one option of the negotiation: a
	// name of 4096 bytes, its length, and more information requests than
	// exist.
	optionBytesMax = 8 << 10
	optionsMax     = 64 // options in one negotiation

	negotiationTimeout = 10 * time.Second
)

// Bounds of one reply batch.
const (
	iovecsMax = 256 // at least 1 + piecesMax
	// directBytesMax is the most data a completion writes to the socket
	// itself; more is left to the connection's writer.
	directBytesMax  = 256 << 10
	directRoundsMax = 4
)

// The bounds depend on each other; a change that breaks this does not build.
const (
	_ = uint(piecesMax*block.MaxTransferBytes - requestBytesMax)
	_ = uint(piecesMax*rangeBytesMax - (1<<32 - 1))
	_ = uint(iovecsMax - 1 - piecesMax)
	_ = uint(payloadBytesMax - requestBytesMax - block.MaxTransferBytes)
)
