package lab

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The process's first thread is never given away: it could not end.
func TestOwnThreadIsNotTheFirst(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				err := onOwnThread(func() error {
					if unix.Gettid() == unix.Getpid() {
						return errors.New("it is the first thread")
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
