package netns

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// exerciserWord makes the test's own program an exerciser of one file: it does
// all kinds of things to it, keeps in memory what it must hold then, and
// compares, by reads and by a map.
const exerciserWord = "netns-exerciser"

const (
	exerciseBytes = 1 << 20 // largest file
	exerciseSpan  = 64 << 10
	syncEvery     = 16
)

// change is one thing done to the file.
type change struct {
	kind        int
	off, length int64
	fill        byte
}

const (
	doWrite = iota
	doTruncate
	doPunch
	doAllocate
	doZero
	kinds
)

// content is what a file must hold.
type content []byte

// after is what it must hold after a change.
func (c content) after(x change) content {
	end := x.off + x.length
	switch x.kind {
	case doTruncate:
		return c.sized(x.off)
	case doPunch:
		end = min(end, int64(len(c)))
		x.fill = 0
	case doZero, doAllocate, doWrite:
		c = c.sized(max(end, int64(len(c))))
	}
	out := bytes.Clone(c)
	if x.kind == doAllocate || x.off >= end {
		return out
	}
	for i := x.off; i < end; i++ {
		out[i] = 0
		if x.kind == doWrite {
			out[i] = x.fill + byte(i/512)
		}
	}
	return out
}

// sized cuts, or adds zeroes.
func (c content) sized(n int64) content {
	out := make(content, n)
	copy(out, c)
	return out
}

// changes are those of a seed, always the same.
func changes(seed uint64) func() change {
	rng := rand.New(rand.NewPCG(seed, 2))
	return func() change {
		x := change{kind: rng.IntN(kinds), fill: byte(1 + rng.IntN(255))}
		if rng.IntN(2) == 0 {
			x.kind = doWrite
		}
		x.length = 1 + rng.Int64N(exerciseSpan)
		x.off = rng.Int64N(exerciseBytes - x.length)
		if rng.IntN(3) == 0 { // on pages
			x.off, x.length = x.off&^4095, (x.length+4095)&^4095
		}
		return x
	}
}

func (x change) do(f *os.File) error {
	fd := int(f.Fd())
	switch x.kind {
	case doTruncate:
		return f.Truncate(x.off)
	case doPunch:
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, x.off, x.length)
	case doAllocate:
		return unix.Fallocate(fd, 0, x.off, x.length)
	case doZero:
		return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, x.off, x.length)
	}
	_, err := f.WriteAt(content(nil).after(x)[x.off:], x.off)
	return err
}

// runExerciser changes the file until it is killed, or looks whether it holds
// what a killed one may have left.
func runExerciser(args []string) error {
	flags := flag.NewFlagSet(exerciserWord, flag.ContinueOnError)
	file := flags.String("file", "", "the file")
	start := flags.String("start", "", "where its contents before the first change are kept, outside the node")
	seed := flags.Uint64("seed", 1, "of the changes")
	look := flags.Bool("look", false, "compare with what it held after synced changes, or up to told ones, and end")
	synced := flags.Int("synced", 0, "changes that were synced")
	told := flags.Int("told", 0, "changes that may have been made")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *look {
		return lookAt(*file, *start, *seed, *synced, *told)
	}
	return exercise(*file, *start, *seed)
}

func exercise(file, start string, seed uint64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Sync(), os.WriteFile(start, text, 0o600)); err != nil {
		return err
	}
	want, next := content(text), changes(seed)
	for n := 1; ; n++ {
		x := next()
		if _, err := fmt.Println("told", n); err != nil {
			return err
		}
		if err := x.do(f); err != nil {
			return fmt.Errorf("change %d, %+v: %w", n, x, err)
		}
		want = want.after(x)
		if err := want.isIn(f); err != nil {
			return fmt.Errorf("after change %d, %+v: %w", n, x, err)
		}
		if n%syncEvery != 0 {
			continue
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if _, err := fmt.Println("synced", n); err != nil {
			return err
		}
	}
}

// isIn compares with the file, read and mapped.
func (c content) isIn(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() != int64(len(c)) {
		return fmt.Errorf("%d bytes, and not %d: %w", info.Size(), len(c), err)
	}
	if len(c) == 0 {
		return nil
	}
	got := make([]byte, len(c))
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, len(c), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(mapped) //nolint:errcheck // only read
	for i := range c {
		if got[i] != c[i] || mapped[i] != c[i] {
			return fmt.Errorf("byte %d is %d by read and %d by map, and not %d", i, got[i], mapped[i], c[i])
		}
	}
	return nil
}

// lookAt compares the file with what its exerciser had synced. Of the changes
// after that, a file system may have any, in any order: each byte must be as after
// the synced ones, or as after one of those; where there was none before, it may be
// zero as well; and the size may be any between their sizes.
func lookAt(file, start string, seed uint64, synced, told int) error {
	now, err := os.ReadFile(start)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var may []content
	next := changes(seed)
	for n := 0; ; n++ {
		if n >= synced {
			may = append(may, now)
		}
		if n == told {
			return judgeContent(may, got)
		}
		now = content(now).after(next())
	}
}

func judgeContent(may []content, got []byte) error {
	least, most := len(may[0]), len(may[0])
	for _, c := range may {
		least, most = min(least, len(c)), max(most, len(c))
	}
	if len(got) < least || len(got) > most {
		return fmt.Errorf("%d bytes; synced were %d, and %d to %d are possible", len(got), len(may[0]), least, most)
	}
	for i, b := range got {
		ok := b == 0 && i >= least
		for _, c := range may {
			ok = ok || i < len(c) && c[i] == b
		}
		if !ok {
			return fmt.Errorf("byte %d is %d, which no change since the last sync explains", i, b)
		}
	}
	return nil
}
