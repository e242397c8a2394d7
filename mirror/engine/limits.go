package engine

import (
	"time"

	"hapair/mirror/block"
)

// Bounds. Every queue of the engine is the sum of its holders.
const (
	// applicationOpsMax is how many application requests are worked on at once;
	// further ones wait in the backlog, which its front ends bound.
	applicationOpsMax = 512
	// earlyOpsMax is how many of them may have been answered before the peer's disk
	// has them: there is room for others at any time.
	earlyOpsMax = applicationOpsMax * 3 / 4
	// resyncOpsMax is how many resync chunks are in flight.
	resyncOpsMax = 12
	// internalOpsMax: one flush of the engine's own per volume.
	internalOpsMax = 64
	// peerOpsMax: what a peer with the same bounds may have in flight here,
	// twice, because a session may end and begin while old writes still run.
	peerOpsMax = 2 * (applicationOpsMax + resyncOpsMax + internalOpsMax)

	opsMax = applicationOpsMax + resyncOpsMax + internalOpsMax + peerOpsMax + 3*verifyOpsMax

	// verifyOpsMax is how many checks of a verify are in flight while no
	// application uses the volumes; beside one it is a single one. Of the peer's,
	// twice as many are answered: those of a session that is over may still run.
	verifyOpsMax = 8
	// verifyChunkBytes is what one check covers.
	verifyChunkBytes = 256 << 10
	// verifyBusyRate is what a verify takes at most, in bytes per second, while
	// applications use the volumes; verifyQuiet is how long after their last
	// request they still do.
	verifyBusyRate = 20 << 20
	verifyQuiet    = 100 * time.Millisecond
	// verifyRestAfter is how long a verify rests when the peer could not answer.
	verifyRestAfter = time.Second
	// verifyListMax is how many differences are listed; all are counted.
	verifyListMax = 128
	// verifyFailuresMax is how many blocks that cannot be read end a verify.
	verifyFailuresMax = 64

	// resyncChunkBytes is the unit of resync: long enough to stream, short
	// enough that an application write to it does not wait noticeably.
	resyncChunkBytes = 256 << 10
	// resyncFlushChunks is how many acknowledged chunks wait for one flush of
	// the target before their bits are cleared (rule R4).
	resyncFlushChunks = 256

	// pagesAtOnce is how many pages of the bitmap a target sends in a row, 16 MiB; more
	// follow while less than queuedMax bytes wait for the link, which bounds what may.
	pagesAtOnce = 4096
	queuedMax   = 16 << 20

	// resyncRetryAfter is how long blocks rest that could not be read.
	resyncRetryAfter = 5 * time.Second
	// resyncFailuresMax is how many reads fail before the next rest.
	resyncFailuresMax = 64

	// zeroBytes is what a resize zeroes at once.
	zeroBytes = 16 << 20

	// unflushedMax bounds the writes remembered as answered by the peer and not
	// yet flushed there (rule R6). At half of it the engine flushes by itself.
	unflushedMax = 8192

	// unreadableEvery is how often an operator is told of reads that fail.
	unreadableEvery = 10 * time.Second

	// handshakeMax is how long a session may take to agree before it is dropped.
	handshakeMax = 3 * time.Second
	// excludeAfter is how long after the end of a session the peer is given to come
	// back, over another path, before it is taken out of the in-sync set. Answers
	// wait meanwhile. Connecting takes some 10 ms; a power supply that fails takes
	// a box's ports down within some 10 ms as well.
	excludeAfter = 200 * time.Millisecond
	// excludeAtLast is how long answers wait for a peer that comes and goes.
	excludeAtLast = 500 * time.Millisecond
	// frozenMax is how long I/O waits for a lease before it fails, where that is
	// asked for: longer than any failover, shorter than the two minutes after which
	// the kernel complains of a process that waits.
	frozenMax = 10 * time.Second
	// peerLively: a peer that has not answered a request for so long may hang as the
	// disk here does.
	peerLively = 5 * time.Second
	// stallTold: a disk that did not stall for so long stalls anew.
	stallTold = 10 * time.Second
	// slowRestMin is how long a peer that was too slow is left alone; each time
	// it is so again, twice as long, slowRestMax at most. After slowForgiven times
	// its last rest without another it starts anew.
	slowRestMin  = 10 * time.Second
	slowRestMax  = 10 * time.Minute
	slowForgiven = 10
	// aheadRestMin and aheadRestMax are the same for a peer that this node has pulled
	// ahead of.
	aheadRestMin = 2 * time.Second
	aheadRestMax = 5 * time.Minute
	// slowBlind: who looks at the clock after such a gap did not run meanwhile, and
	// has not read what the peer answered.
	slowBlind = time.Second
	// pageSaveInterval is how often changed bitmap pages are written back while
	// nothing waits for them.
	pageSaveInterval = time.Second
	// pagesPerSave bounds the places in which one round of it writes.
	pagesPerSave = 32
	// pagesPerWrite bounds how many neighbours are written at once: the bitmap of a
	// TiB, when all of it is marked, is 34 writes.
	pagesPerWrite = block.MaxTransferBytes / 4096
)
