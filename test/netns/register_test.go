package netns

import (
	"errors"
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hapair/test/check/history"
)

// registerWord makes the test's own program a set of clients: each reads and
// writes the registers of a node's device, whenever there is one, and tells of
// each request before it is made and after it was answered.
const registerWord = "netns-registers"

// Registers are blocks. Few, so that clients meet; in rows, so that a request
// may take several; rows apart, so that they fall into several extents.
const (
	rowBlocks    = 8
	rows         = 4
	rowStride    = 5 << 20
	clients      = 4
	blocksAtOnce = 4
	deviceRetry  = 2 * time.Millisecond
)

// registers are the clients on one node.
type registers struct {
	device string
	first  uint64 // values are above
	seed   uint64
	values atomic.Uint64
	ending atomic.Bool

	mu     sync.Mutex
	failed error // of telling
}

func runRegisters(args []string) error {
	flags := flag.NewFlagSet(registerWord, flag.ContinueOnError)
	s := &registers{}
	flags.StringVar(&s.device, "device", "", "the block device")
	flags.Uint64Var(&s.first, "first", 1, "the first value written")
	flags.Uint64Var(&s.seed, "seed", 1, "of what is asked for")
	if err := flags.Parse(args); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() { <-term; s.ending.Store(true) }()
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() { s.client(c) })
	}
	all.Wait()
	return s.failed
}

// client asks until it is told to end, on one device after another: one that
// fails a request is left, and its name is opened again.
func (s *registers) client(c int) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(c)))
	buf := alignedBlocks(blocksAtOnce)
	number := uint64(0)
	for !s.ending.Load() {
		f, err := os.OpenFile(s.device, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EIO) {
				s.tell(err)
			}
			<-time.After(deviceRetry) // nothing tells when a device appears
			continue
		}
		for err == nil && !s.ending.Load() {
			number++
			err = s.request(f, rng, c, number, buf)
		}
		f.Close() //nolint:errcheck // opened for requests, which were answered or not
	}
}

// request makes one request and tells of it. The error is the device's.
func (s *registers) request(f *os.File, rng *rand.Rand, c int, number uint64, buf []byte) error {
	o := &history.Op{Kind: history.Flush}
	if what := rng.IntN(20); what > 0 {
		o.Kind = history.Read
		o.Blocks = 1 + rng.IntN(blocksAtOnce)
		o.Block = rng.IntN(rows)*rowBlocks + rng.IntN(rowBlocks-o.Blocks+1)
		if what > 9 {
			o.Kind, o.Value = history.Write, history.Value(s.first+s.values.Add(1))
		}
	}
	data := buf[:o.Blocks*history.BlockBytes]
	if o.Kind == history.Write {
		history.Fill(data, o.Block, o.Value)
	}
	o.Call = bootTime()
	s.mu.Lock()
	err := history.WriteCall(os.Stdout, c, number, o)
	s.mu.Unlock()
	s.tell(err)
	if err := carryOut(f, o, data); err != nil {
		return err
	}
	o.Return = bootTime()
	if o.Kind == history.Read {
		if o.Found, err = history.Decode(data, o.Block); err != nil {
			s.tell(err)
		}
	}
	s.mu.Lock()
	err = history.WriteReturn(os.Stdout, c, number, o)
	s.mu.Unlock()
	s.tell(err)
	return nil
}

func carryOut(f *os.File, o *history.Op, data []byte) error {
	at := int64(o.Block/rowBlocks)*rowStride + int64(o.Block%rowBlocks)*history.BlockBytes
	var err error
	switch o.Kind {
	case history.Read:
		_, err = f.ReadAt(data, at)
	case history.Write:
		_, err = f.WriteAt(data, at)
	default: // a flush
		err = f.Sync()
	}
	return err
}

// tell ends the clients on what is no answer of the device.
func (s *registers) tell(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.ending.Store(true)
}

// alignedBlocks is memory that direct I/O takes.
func alignedBlocks(n int) []byte {
	b := make([]byte, (n+1)*history.BlockBytes)
	at := history.BlockBytes - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%history.BlockBytes)
	return b[at : at+n*history.BlockBytes : at+n*history.BlockBytes]
}
