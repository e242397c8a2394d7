package logstore

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// image is what the file says: the entries, without gaps, and the stable values.
type image struct {
	first  uint64 // index of entries[0]; meaningless when there are none
	logs   []*raft.Log
	values map[string][]byte
	bytes  int64 // encoded size of all that is live
}

func newImage() *image { return &image{values: map[string][]byte{}} }

func entryBytes(l *raft.Log) int64 { return int64(34 + len(l.Data) + len(l.Extensions)) }

func valueBytes(key string, val []byte) int64 { return int64(9 + len(key) + len(val)) }

func (m *image) last() uint64 {
	if len(m.logs) == 0 {
		return 0
	}
	return m.first + uint64(len(m.logs)) - 1
}

func (m *image) add(l *raft.Log) error {
	if l.Index == 0 {
		return fmt.Errorf("log entry with index 0")
	}
	if len(m.logs) == 0 {
		m.first = l.Index
	} else if l.Index != m.last()+1 {
		return fmt.Errorf("log entry %d after %d", l.Index, m.last())
	}
	m.logs = append(m.logs, l)
	m.bytes += entryBytes(l)
	return nil
}

// remove takes lo..hi away, both inclusive: a head, a tail, or all.
func (m *image) remove(lo, hi uint64) error {
	if len(m.logs) == 0 || lo > hi || hi < m.first || lo > m.last() {
		return nil
	}
	switch {
	case lo <= m.first && hi >= m.last():
		m.cut(m.logs)
		m.logs = nil
	case lo <= m.first:
		n := hi - m.first + 1
		m.cut(m.logs[:n])
		m.logs = append([]*raft.Log(nil), m.logs[n:]...)
		m.first = hi + 1
	case hi >= m.last():
		n := lo - m.first
		m.cut(m.logs[n:])
		m.logs = append([]*raft.Log(nil), m.logs[:n]...)
	default:
		return fmt.Errorf("removing %d..%d would leave a gap in %d..%d", lo, hi, m.first, m.last())
	}
	return nil
}

func (m *image) cut(logs []*raft.Log) {
	for _, l := range logs {
		m.bytes -= entryBytes(l)
	}
}

func (m *image) set(key string, val []byte) {
	if old, ok := m.values[key]; ok {
		m.bytes -= valueBytes(key, old)
	}
	m.values[key] = val
	m.bytes += valueBytes(key, val)
}

func (m *image) get(index uint64) *raft.Log {
	if len(m.logs) == 0 || index < m.first || index > m.last() {
		return nil
	}
	return m.logs[index-m.first]
}
