package fuse

import (
	"time"

	"hapair/mirror/block"
)

// Bounds of one device. Memory for data is at most payloadBytesMax plus one
// largest buffer for each reader: 64 + 4 MiB.
const (
	// readersMax is the number of goroutines that read /dev/fuse. Two keep
	// the CPUs of a small machine busy; the others serve the file's
	// housekeeping while those wait inside Submit.
	readersMax = 4

	// backgroundMax is how many asynchronous requests the kernel has in
	// flight; the loop device's queue is 128 deep.
	backgroundMax = 192

	// callsMax bounds requests in flight: the kernel's asynchronous ones, and
	// as many synchronous ones as readers can wait for.
	callsMax = backgroundMax + 64

	payloadBytesMax = 64 << 20

	// rangeBytesMax is the longest piece of a hole or of zeroes handed to the
	// Handler at once. The loop device asks for at most 4 GiB.
	rangeBytesMax  = 128 << 20
	rangePiecesMax = 64

	// copyBytesMax: up to here a write's data are copied out of the reader's
	// buffer; longer ones keep it and the reader takes another.
	copyBytesMax = 64 << 10

	loopTriesMax = 100
	loopTryPause = 10 * time.Millisecond

	// probeTimeMax is how long Stop waits for udev to leave the device.
	probeTimeMax = 2 * time.Second
	probePause   = 20 * time.Millisecond

	// abortTimeMax is the longest Abort takes.
	abortTimeMax = 3 * time.Second
	// settleTime is how long Abort waits for completions, so that in the
	// ordinary case nothing at all is left when it returns.
	settleTime = 100 * time.Millisecond
)

// pagesMax tells the kernel how many pages one request may have.
const pagesMax = block.MaxTransferBytes / 4096

// Attributes never change while the device is there.
const attrValidSeconds = 3600
