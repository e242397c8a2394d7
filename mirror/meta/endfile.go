package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hapair/kernel/durable"
)

// EndFile is a file that keeps where the internal metadata of a volume end. It
// is a hint: without it a disk that has grown is not recognised, nothing else.
type EndFile struct{ Path string }

// EndFileOf is the file of a volume below the directory for state of an agent.
func EndFileOf(stateDir, resource string, volume int) EndFile {
	return EndFile{filepath.Join(stateDir, "metadata", fmt.Sprintf("%s-%d.json", resource, volume))}
}

// endFormat of the file.
const endFormat = 1

type endContents struct {
	Format int   `json:"format"`
	End    int64 `json:"end_bytes"`
}

// Last is what was kept last, 0 when nothing was, or it cannot be read.
func (f EndFile) Last() int64 {
	data, err := os.ReadFile(f.Path)
	var c endContents
	if err != nil || json.Unmarshal(data, &c) != nil || c.Format != endFormat || c.End < 0 {
		return 0
	}
	return c.End
}

// Keep replaces what is kept, durably; the old or the new is there, whatever
// happens.
func (f EndFile) Keep(end int64) error {
	data, err := json.Marshal(endContents{Format: endFormat, End: end})
	if err != nil {
		return fmt.Errorf("keep the end of the metadata: %w", err)
	}
	if had, err := os.ReadFile(f.Path); err == nil && bytes.Equal(had, data) {
		return nil
	}
	if err := durable.Replace(f.Path, data); err != nil {
		return fmt.Errorf("keep the end of the metadata: %w", err)
	}
	return nil
}

// Forget removes it.
func (f EndFile) Forget() error {
	if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the end of the metadata: %w", err)
	}
	return nil
}
