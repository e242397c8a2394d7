// Package durable replaces files so that a power cut finds the old one or the
// new one.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace puts data into the file at path, only its owner's to read, and makes
// that durable. Its directory is made where it is missing. After an error the
// old file is there, or the new one, not known to be durable.
func Replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(dir)
}

// SyncDir makes durable what files are in a directory, and under which names.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
