// Package secret reads files that only root may read, and says what is wrong
// with those that others may.
package secret

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// Read returns what is in a file of at most bytesMax bytes that holds a secret.
// It must be a regular file of root's, or of the user this process runs as, and
// nobody else may read or write it.
func Read(file string, bytesMax int64) ([]byte, error) { return read(file, bytesMax, private) }

// Public is Read for a file that anybody may see.
func Public(file string, bytesMax int64) ([]byte, error) {
	return read(file, bytesMax, func(string, os.FileInfo) error { return nil })
}

func private(file string, info os.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s holds a secret and has mode %04o, must be 0600 or less: chmod 600 %s", file, mode, file)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s holds a secret and belongs to user %d, must be root's: chown root %s", file, stat.Uid, file)
	}
	return nil
}

func read(file string, bytesMax int64, judge func(string, os.FileInfo) error) ([]byte, error) {
	// Not blocking: a FIFO under the name is refused, not waited for.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > bytesMax {
		return nil, fmt.Errorf("%s: %s of %d bytes, must be a regular file of at most %d", file, info.Mode(), info.Size(), bytesMax)
	}
	if err := judge(file, info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, bytesMax))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return b, nil
}
