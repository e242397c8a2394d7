package deadman

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// page is the memory that agent and helper share: for each slot until when the
// resource may be served, on CLOCK_BOOTTIME; 0: not at all.
type page struct {
	file *os.File
	mem  []byte
}

func newPage() (*page, error) {
	fd, err := unix.MemfdCreate("hapair-deadman", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the page shared with the deadman: %w", err)
	}
	f := os.NewFile(uintptr(fd), "deadman page")
	if err := f.Truncate(pageBytes); err != nil {
		return nil, fmt.Errorf("size the page shared with the deadman: %w", err)
	}
	return mapPage(f)
}

func mapPage(f *os.File) (*page, error) {
	st, err := f.Stat()
	if err == nil && st.Size() != pageBytes {
		err = fmt.Errorf("it has %d bytes, want %d", st.Size(), pageBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("look at the page shared with the deadman: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, pageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the page shared with the deadman: %w", err)
	}
	return &page{f, mem}, nil
}

// at is the word of a slot; slots are checked where they come in.
func (p *page) at(slot int) *int64 { return (*int64)(unsafe.Pointer(&p.mem[slot*8])) }

func (p *page) until(slot int) time.Duration { return time.Duration(atomic.LoadInt64(p.at(slot))) }

func (p *page) set(slot int, until time.Duration) { atomic.StoreInt64(p.at(slot), int64(until)) }

func (p *page) close() error {
	err := unix.Munmap(p.mem)
	if cerr := p.file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("give the page of the deadman back: %w", err)
	}
	return nil
}
