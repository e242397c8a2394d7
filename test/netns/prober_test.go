package netns

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// proberWord makes the test's own program a prober: a process on a node that
// writes and reads its device directly and says what was answered when.
const proberWord = "netns-prober"

// Blocks go round a number of slots, spread over the volume.
const (
	slotCount  = 256
	slotStride = 192 << 10
)

// prober is the process on the node.
type prober struct {
	device    string
	ahead     string // another device, which is to have each block before this one is asked for it
	first     uint64
	readsOnly bool
	cached    bool // writes ask for no more than an answer: nothing of stable storage
	out       struct {
		sync.Mutex
		failed error
	}
	log    *os.File // ahead, open
	mu     sync.Mutex
	newest [slotCount]uint64 // answered writes; a later read must not be older
}

func runProber(args []string) error {
	flags := flag.NewFlagSet(proberWord, flag.ContinueOnError)
	p := &prober{}
	flags.StringVar(&p.device, "device", "", "the block device")
	flags.StringVar(&p.ahead, "ahead", "", "a device that each block is written to first, and answered by")
	flags.Uint64Var(&p.first, "first", 1, "the first number written")
	flags.BoolVar(&p.readsOnly, "reads-only", false, "write nothing")
	flags.BoolVar(&p.cached, "cached", false, "ask for writes, not for stable storage")
	dump := flags.Bool("dump", false, "print what the slots hold, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dump {
		return p.dump()
	}
	var both sync.WaitGroup
	if !p.readsOnly {
		both.Go(func() { p.work("w", p.writeOne) })
	}
	both.Go(func() { p.work("r", p.readOne) })
	both.Wait() // each ends with its first error
	return p.out.failed
}

// work repeats one kind of request until it fails, and says so of each.
func (p *prober) work(kind string, one func(f *os.File, buf []byte, i uint64) (slot int64, n uint64, err error)) {
	how := os.O_RDWR | unix.O_DIRECT
	if !p.cached {
		how |= unix.O_DSYNC
	}
	f, err := os.OpenFile(p.device, how, 0)
	if err == nil && kind == "w" && p.ahead != "" {
		p.log, err = os.OpenFile(p.ahead, how, 0)
	}
	if err != nil {
		p.tell(kind, 0, 0, bootTime(), err)
		return
	}
	defer f.Close()
	buf := alignedBlock()
	for i := uint64(0); err == nil; i++ {
		began := bootTime()
		var slot int64
		var n uint64
		slot, n, err = one(f, buf, i)
		p.tell(kind, slot, n, began, err)
	}
}

func (p *prober) tell(kind string, slot int64, n uint64, began time.Duration, err error) {
	word := "ok"
	if err != nil {
		word = fmt.Sprintf("%q", err.Error())
	}
	p.out.Lock()
	defer p.out.Unlock()
	if _, err := fmt.Printf("%s %d %d %d %d %s\n", kind, slot, n, began, bootTime(), word); err != nil && p.out.failed == nil {
		p.out.failed = err
	}
}

func (p *prober) writeOne(f *os.File, buf []byte, i uint64) (int64, uint64, error) {
	n := p.first + i
	slot := int64(n % slotCount)
	for at := 0; at < len(buf); at += 8 {
		binary.LittleEndian.PutUint64(buf[at:], n)
	}
	if p.log != nil {
		if _, err := p.log.WriteAt(buf, slot*slotStride); err != nil {
			return slot, n, err
		}
	}
	if _, err := f.WriteAt(buf, slot*slotStride); err != nil {
		return slot, n, err
	}
	p.mu.Lock()
	p.newest[slot] = n
	p.mu.Unlock()
	return slot, n, nil
}

func (p *prober) readOne(f *os.File, buf []byte, i uint64) (int64, uint64, error) {
	slot := int64(i * 7 % slotCount)
	p.mu.Lock()
	least := p.newest[slot]
	p.mu.Unlock()
	n, err := readSlot(f, buf, slot)
	if err == nil && n < least {
		err = fmt.Errorf("stale: read %d after %d was answered", n, least)
	}
	return slot, n, err
}

// readSlot returns the oldest number in a slot; a block that was torn by a
// crash holds two.
func readSlot(f *os.File, buf []byte, slot int64) (uint64, error) {
	if _, err := f.ReadAt(buf, slot*slotStride); err != nil {
		return 0, err
	}
	oldest := binary.LittleEndian.Uint64(buf)
	for at := 8; at < len(buf); at += 8 {
		oldest = min(oldest, binary.LittleEndian.Uint64(buf[at:]))
	}
	return oldest, nil
}

func (p *prober) dump() error {
	f, err := os.OpenFile(p.device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := alignedBlock()
	for slot := range int64(slotCount) {
		n, err := readSlot(f, buf, slot)
		if err != nil {
			return err
		}
		if _, err := fmt.Println(slot, n); err != nil {
			return err
		}
	}
	return nil
}

// alignedBlock is memory that direct I/O takes.
func alignedBlock() []byte {
	b := make([]byte, 2*blockBytes)
	at := blockBytes - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%blockBytes)
	return b[at : at+blockBytes : at+blockBytes]
}

// bootTime is the clock that goes on through a suspend; all nodes share it.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(errors.Join(errors.New("no boot time"), err)) // no kernel since 2.6.39
	}
	return time.Duration(ts.Nano())
}
