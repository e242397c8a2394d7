package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	compareBytes = 1 << 20
	blockBytes   = 4096
)

// sameFiles compares two files byte for byte and counts the blocks that differ.
func sameFiles(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close() //nolint:errcheck // only read from
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close() //nolint:errcheck // only read from
	return sameReaders(fa, fb)
}

func sameReaders(a, b io.Reader) error {
	pa, pb := make([]byte, compareBytes), make([]byte, compareBytes)
	var at, differ, first int64
	for {
		na, ea := io.ReadFull(a, pa)
		nb, eb := io.ReadFull(b, pb)
		if na != nb {
			return errors.New("the copies differ in length")
		}
		for i := 0; i < na; i += blockBytes {
			end := min(i+blockBytes, na)
			if !bytes.Equal(pa[i:end], pb[i:end]) {
				if differ == 0 {
					first = at + int64(i)
				}
				differ++
			}
		}
		at += int64(na)
		if ended(ea) && ended(eb) {
			break
		}
		if err := errors.Join(ea, eb); err != nil {
			return err
		}
	}
	if differ > 0 {
		return fmt.Errorf("%d blocks differ, the first at %d", differ, first)
	}
	return nil
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
