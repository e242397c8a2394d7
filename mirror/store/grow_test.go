package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hapair/mirror/block"
)

// A disk that has grown is used as far as it was measured; one that has become
// smaller is not believed.
func TestMeasure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	resize := func(n int64) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = errors.Join(f.Truncate(n), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	resize(1 << 20)
	f, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	at := func(offset int64) error {
		done := make(chan error, 1)
		f.Submit(&block.Request{Op: block.WriteZeroes, Offset: offset, Length: 4096, Done: func(_ *block.Request, err error) { done <- err }})
		return <-done
	}
	resize(2 << 20)
	if err := at(1 << 20); !errors.Is(err, block.ErrRange) {
		t.Errorf("behind the end it was opened with: %v", err)
	}
	if n, err := f.Measure(); n != 2<<20 || err != nil || f.Geometry().SizeBytes != 2<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := at(1 << 20); err != nil {
		t.Error(err)
	}
	resize(1 << 20)
	if n, err := f.Measure(); n != 2<<20 || !errors.Is(err, ErrShrunk) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := f.Extend(3 << 20); err != nil || f.Geometry().SizeBytes != 3<<20 {
		t.Errorf("%d bytes, %v", f.Geometry().SizeBytes, err)
	}
	if err := f.Extend(1 << 20); err != nil || f.Geometry().SizeBytes != 3<<20 {
		t.Errorf("made smaller: %d bytes, %v", f.Geometry().SizeBytes, err)
	}
}
