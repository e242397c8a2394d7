package aside

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"hapair/mirror/block"
)

// What can be neither saved nor be said to be missing is not overwritten: after the
// next start the image would look whole. When it can be said, the disk goes on.
func TestNothingIsOverwrittenThatTheImageCannotSayItLacks(t *testing.T) {
	told := make(chan error, 9)
	d, inner, dir, was := keeping(t, Limits{Lost: func(err error) { told <- err }})
	_, idx := paths(dir, 3)
	refuse := make(chan error, 9)
	good := d.Image().flush
	d.Image().flush = func(f file) error {
		select {
		case err := <-refuse:
			return err
		default:
			return good(f)
		}
	}
	must(t, os.Rename(idx, idx+".away")) // and it cannot be removed
	must(t, os.MkdirAll(filepath.Join(idx, "full"), 0o700))
	for range 2 {
		refuse <- syscall.EROFS // data of the image
	}
	refuse <- syscall.EROFS
	if err := do(t, d, block.Write, 0, block.Aligned(4096), 4096); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("overwritten, and nobody can tell: %v", err)
	}
	if err := do(t, d, block.Discard, 0, nil, 4096); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("discarded, and nobody can tell: %v", err)
	}
	if !bytes.Equal(inner.data, was) || len(told) != 1 {
		t.Fatalf("the disk has changed, or it was told %d times", len(told))
	}
	must(t, os.RemoveAll(idx))
	must(t, os.Rename(idx+".away", idx))
	write(t, d, 0, 4096)
	if p := phaseOf(t, dir); p != Incomplete {
		t.Fatalf("overwritten, and the image says %s", p)
	}
}

// hang has the image's file system hang at the next flush of a file that is chosen,
// until the channel is closed.
func hang(m *Image, at file) (entered, until chan struct{}) {
	entered, until = make(chan struct{}), make(chan struct{})
	var once sync.Once
	good := m.flush
	m.flush = func(f file) error {
		if f == at {
			once.Do(func() { close(entered); <-until })
		}
		return good(f)
	}
	return entered, until
}

// A file system that hangs is noticed, keeps nobody waiting for ever, and what it does
// later harms nobody: until then the image cannot be opened by another life.
func TestTheImagesFileSystemHangs(t *testing.T) {
	for name, at := range map[string]func(*Image) file{"data": func(m *Image) file { return m.data }, "index": func(m *Image) file { return m.index }} {
		t.Run(name, func(t *testing.T) {
			d, inner, dir, was := keeping(t, Limits{})
			entered, until := hang(d.Image(), at(d.Image()))
			ended := make(chan error, 2)
			for i := range 2 {
				d.Submit(&block.Request{Op: block.Write, Offset: int64(i) * 8192, Length: 4096, Data: block.Aligned(4096), Done: func(_ *block.Request, err error) { ended <- err }})
				if i == 0 {
					<-entered
				}
			}
			for range 5 {
				d.Tick()
			}
			if n := d.Waiting(); n != 5 {
				t.Fatalf("after 5 ticks it waits for %d", n)
			}
			if s := d.Image().State(); s.Phase != Keeping {
				t.Fatal(s)
			}
			d.Abandon(errors.New("too long"))
			for range 2 {
				if err := <-ended; !errors.Is(err, block.ErrNoAnswer) {
					t.Fatal(err)
				}
			}
			if err := do(t, d, block.Write, 65536, block.Aligned(512), 512); !errors.Is(err, block.ErrNoAnswer) || d.Waiting() != 0 {
				t.Fatalf("%v, waiting for %d", err, d.Waiting())
			}
			if err := d.Leave(); !errors.Is(err, block.ErrNoAnswer) {
				t.Fatal(err)
			}
			if _, err := Open(dir, 3); !errors.Is(err, ErrBusy) {
				t.Fatalf("opened beside one that hangs: %v", err)
			}
			close(until)
			<-d.keeper.Load().ended
			m, err := Open(dir, 3)
			must(t, err)
			if m.State().Phase != Keeping || !bytes.Equal(inner.data, was) {
				t.Fatalf("%+v, or the disk has changed", m.State())
			}
			must(t, m.close())
		})
	}
}

// A state that is being written keeps nobody waiting who wants to know it.
func TestTheStateIsKnownWhileItIsWritten(t *testing.T) {
	d, _, _, _ := keeping(t, Limits{})
	m := d.Image()
	entered, until := hang(m, m.index)
	written := make(chan error, 1)
	go func() { written <- m.SetState(State{Phase: Undoing}) }()
	<-entered
	known := make(chan State, 1)
	go func() { known <- m.State() }()
	select {
	case s := <-known:
		if s.Phase != Undoing {
			t.Error(s)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody knows the state")
	}
	close(until)
	must(t, <-written)
}

// A disk that is given up takes no image with it: nothing was overwritten.
func TestAnImageOutlivesADiskThatHung(t *testing.T) {
	for _, why := range []error{block.ErrNoAnswer, block.ErrClosed} {
		d, inner, dir, was := keeping(t, Limits{})
		inner.err = why
		if err := do(t, d, block.Write, 0, block.Aligned(4096), 4096); !errors.Is(err, why) {
			t.Fatal(err)
		}
		if p := phaseOf(t, dir); p != Keeping || !bytes.Equal(inner.data, was) {
			t.Fatalf("%s, or the disk has changed", p)
		}
	}
}

// From when a disk is let go of nothing is overwritten that is not saved: the next life
// finds the image as it is.
func TestNothingIsOverwrittenAfterTheImageWasLeft(t *testing.T) {
	d, inner, dir, was := keeping(t, Limits{})
	must(t, d.Leave())
	if err := do(t, d, block.Write, 0, block.Aligned(4096), 4096); !errors.Is(err, block.ErrClosed) || !bytes.Equal(inner.data, was) {
		t.Fatalf("%v, or the disk has changed", err)
	}
	if err := do(t, d.View(), block.Read, 0, make([]byte, 512), 512); !errors.Is(err, block.ErrClosed) || d.Image() != nil {
		t.Fatalf("an image that was left is shown: %v", err)
	}
	must(t, d.Leave())
	if p := phaseOf(t, dir); p != Keeping {
		t.Fatal(p)
	}
}

// sick is a file that cannot be read from a place on.
type sick struct {
	file
	from int64
	err  error
}

func (s sick) ReadAt(b []byte, off int64) (int, error) {
	if off >= s.from {
		return 0, s.err
	}
	return s.file.ReadAt(b, off)
}

// An index that cannot be read to its end is not one that ends there.
func TestABatchThatCannotBeReadIsNotATornOne(t *testing.T) {
	d, _, dir, _ := keeping(t, Limits{})
	for b := range int64(2) {
		write(t, d, b*BlockBytes, BlockBytes)
	}
	must(t, d.Leave())
	_, idx := paths(dir, 3)
	f, err := os.Open(idx)
	must(t, err)
	defer f.Close()
	for from, phase := range map[int64]Phase{headBlocks + 1: Incomplete, 1: Incomplete, headBlocks + 2: Incomplete, 99: Keeping} {
		m, err := load(sick{f, from * BlockBytes, io.ErrNoProgress})
		must(t, err)
		if s := m.State(); from == 99 == (s.Phase == Incomplete) || s.Phase != phase {
			t.Errorf("unreadable from %d: %+v", from, s)
		}
	}
	if _, err := load(sick{f, 0, io.ErrNoProgress}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("a header that cannot be read now is damaged for ever: %v", err)
	}
}

// An image that is being written to may be read whole.
func TestTheImageIsReadWhileItGrows(t *testing.T) {
	d, _, _, was := keeping(t, Limits{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := range int64(60) {
			write(t, d, b*BlockBytes, 512)
		}
	})
	for d.Image().Blocks() < 60 {
		must(t, d.Image().Each(func(b int64, data []byte) error {
			if !bytes.Equal(data, was[b*BlockBytes:(b+1)*BlockBytes]) {
				return errors.New("not what was there")
			}
			return nil
		}))
	}
	wg.Wait()
}

// A power cut while an image is made leaves none, and the next is made over the rest.
func TestAnImageIsMadeWhollyOrNotAtAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "split-brain", "r")
	must(t, os.MkdirAll(dir, 0o700))
	_, idx := paths(dir, 3)
	must(t, os.WriteFile(idx+".new", []byte("half"), 0o600))
	if _, err := Open(dir, 3); !errors.Is(err, ErrNone) || Exists(dir, 3) {
		t.Fatal(err)
	}
	m, err := Create(dir, header())
	must(t, err)
	must(t, m.close())
	must(t, Discredit(dir, 3))
	if _, err := Open(dir, 3); !errors.Is(err, ErrNone) || !Exists(dir, 3) {
		t.Fatalf("discredited, and opened: %v", err)
	}
	if _, err := Create(dir, header()); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	must(t, Remove(dir, 3))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Fatalf("dropped, and there is %v, %v", left, err)
	}
}

// An image that no later life could open is not made.
func TestImageOfTooLargeAVolume(t *testing.T) {
	dir, h := t.TempDir(), header()
	h.SizeBytes = maxBytes + 1
	m, err := Create(dir, h)
	if err == nil {
		must(t, m.close())
	}
	if !errors.Is(err, ErrNoRoom) || Exists(dir, h.Volume) {
		t.Fatalf("of %d bytes: %v", h.SizeBytes, err)
	}
}

// An image that lacks something is not put back: it would be a mixture.
func TestWhatIsIncompleteIsNotPutBack(t *testing.T) {
	d, inner, _, _ := keeping(t, Limits{})
	write(t, d, 0, 4096)
	now := bytes.Clone(inner.data)
	must(t, d.Image().SetState(State{Phase: Incomplete, Why: "no room"}))
	if err := d.PutBack(t.Context()); !errors.Is(err, ErrIncomplete) || !bytes.Equal(inner.data, now) {
		t.Fatalf("put back: %v", err)
	}
	if err := d.Image().Check(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("whole: %v", err)
	}
}
