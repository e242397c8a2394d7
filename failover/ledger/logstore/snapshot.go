package logstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"hapair/kernel/durable"
)

// ErrOlderSnapshot says that one is there that ends with a later entry.
var ErrOlderSnapshot = errors.New("a newer ledger snapshot is there")

// MaxSnapshot bounds a snapshot, in bytes.
const MaxSnapshot = 24 << 20

const (
	snapshotMagic  = "hapair ledger snapshot 1\n"
	snapshotPrefix = len(snapshotMagic) + 12 // magic, meta length, data length, crc32c
	maxMeta        = 64 << 10
)

// Snapshots keeps one FSM snapshot in a file that is replaced as a whole, by none that
// ends with an earlier entry: raft takes its own beside those that the leader sends, and
// the log holds only what is beyond the latest. Of two with one end, as when a node goes
// alone, the one written last is there, whatever the wall clock says. It implements
// raft.SnapshotStore and is safe for concurrent use.
type Snapshots struct {
	dir  string
	sync func(*os.File) error

	writer chan struct{} // holds one token: who has it may change the file

	mu   sync.Mutex         // guards what follows, never across I/O: a hung disk must not stop a reader
	meta *raft.SnapshotMeta // changed only with the writer's token and mu; nil: none
	data []byte
}

func (s *Snapshots) beginWrite() { s.writer <- struct{}{} }
func (s *Snapshots) endWrite()   { <-s.writer }

// show has readers see meta and data.
func (s *Snapshots) show(meta *raft.SnapshotMeta, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meta, s.data = meta, data
}

// OpenSnapshots reads the snapshot in dir, if any.
func OpenSnapshots(dir string, opt Options) (*Snapshots, error) {
	s := &Snapshots{dir: dir, sync: opt.Sync, writer: make(chan struct{}, 1)}
	if s.sync == nil {
		s.sync = (*os.File).Sync
	}
	if err := os.Remove(s.path() + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
	}
	defer s.ballast().lay() //nolint:errcheck // KeepRoom tells of it
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger snapshot: %w", err)
	}
	s.meta, s.data, err = parseSnapshot(b)
	if err != nil {
		return nil, &CorruptError{Path: s.path(), What: err.Error()}
	}
	return s, nil
}

func (s *Snapshots) path() string { return filepath.Join(s.dir, "snapshot") }

func parseSnapshot(b []byte) (*raft.SnapshotMeta, []byte, error) {
	if len(b) < snapshotPrefix || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return nil, nil, fmt.Errorf("begins with %.25q, wanted %q", b, snapshotMagic)
	}
	h := b[len(snapshotMagic):]
	metaLen, dataLen := binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
	body := b[snapshotPrefix:]
	if metaLen > maxMeta || dataLen > MaxSnapshot || uint64(metaLen)+uint64(dataLen) != uint64(len(body)) {
		return nil, nil, fmt.Errorf("lengths %d and %d in a body of %d bytes", metaLen, dataLen, len(body))
	}
	if sum := snapshotSum(h, body); sum != binary.LittleEndian.Uint32(h[8:]) {
		return nil, nil, errors.New("checksum does not match")
	}
	meta := new(raft.SnapshotMeta)
	if err := json.Unmarshal(body[:metaLen], meta); err != nil {
		return nil, nil, fmt.Errorf("meta: %w", err)
	}
	if meta.Size != int64(dataLen) {
		return nil, nil, fmt.Errorf("meta says %d bytes, found %d", meta.Size, dataLen)
	}
	return meta, body[metaLen:], nil
}

func snapshotSum(lengths, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(lengths[:8], castagnoli), castagnoli, body)
}

func encodeSnapshot(meta *raft.SnapshotMeta, data []byte) ([]byte, error) {
	m, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, snapshotPrefix+len(m)+len(data))
	b = append(b, snapshotMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	body := append(m, data...)
	b = binary.LittleEndian.AppendUint32(b, snapshotSum(b[len(snapshotMagic):], body))
	return append(b, body...), nil
}

// Create implements raft.SnapshotStore.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("ledger snapshot: version %d, wanted 1", version)
	}
	return &sink{s: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return nil, nil
	}
	m := *s.meta
	return []*raft.SnapshotMeta{&m}, nil
}

// Open implements raft.SnapshotStore.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil || s.meta.ID != id {
		return nil, nil, fmt.Errorf("ledger snapshot %s: %w", id, fs.ErrNotExist)
	}
	m := *s.meta
	return &m, io.NopCloser(bytes.NewReader(s.data)), nil
}

// Remove throws the snapshot away, durable on return.
func (s *Snapshots) Remove() error {
	s.beginWrite()
	defer s.endWrite()
	if err := os.Remove(s.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove ledger snapshot: %w", err)
	}
	s.show(nil, nil)
	return durable.SyncDir(s.dir)
}

// replace makes meta and data the snapshot, or is ErrOlderSnapshot.
func (s *Snapshots) replace(meta raft.SnapshotMeta, data []byte) error {
	meta.Size = int64(len(data))
	b, err := encodeSnapshot(&meta, data)
	if err != nil {
		return fmt.Errorf("encode ledger snapshot: %w", err)
	}
	s.beginWrite()
	defer s.endWrite()
	if s.meta != nil && meta.Index < s.meta.Index {
		return fmt.Errorf("write ledger snapshot up to entry %d, there is one up to %d: %w", meta.Index, s.meta.Index, ErrOlderSnapshot)
	}
	if err := s.write(b); err != nil {
		return fmt.Errorf("write ledger snapshot: %w", err)
	}
	s.show(&meta, data)
	return nil
}

// write replaces the file, durable on return, with the writer's token.
func (s *Snapshots) write(b []byte) error {
	defer s.ballast().lay() //nolint:errcheck // KeepRoom tells of it
	f, err := s.ballast().write(s.path()+".new", func(f *os.File) error {
		_, err := f.Write(b)
		if err == nil {
			err = trim(f, int64(len(b)))
		}
		if err == nil {
			err = s.sync(f)
		}
		return err
	})
	if noRoom(err) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path()); err != nil {
		return err
	}
	return durable.SyncDir(s.dir)
}

func (s *Snapshots) ballast() ballast { return ballast{s.path() + ".ballast"} }

// KeepRoom is that of Store, for the next snapshot.
func (s *Snapshots) KeepRoom() error {
	s.beginWrite()
	defer s.endWrite()
	return s.ballast().lay()
}

// sink gathers a snapshot in memory; Close writes it.
type sink struct {
	s    *Snapshots
	meta raft.SnapshotMeta
	buf  bytes.Buffer
	done bool
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return k.meta.ID }

// Write implements raft.SnapshotSink.
func (k *sink) Write(b []byte) (int, error) {
	if k.buf.Len()+len(b) > MaxSnapshot {
		return 0, fmt.Errorf("ledger snapshot: more than %d bytes", MaxSnapshot)
	}
	return k.buf.Write(b)
}

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error {
	k.done = true
	return nil
}

// Close implements raft.SnapshotSink: durable on return.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	return k.s.replace(k.meta, k.buf.Bytes())
}
