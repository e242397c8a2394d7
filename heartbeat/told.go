package heartbeat

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Told is what a peer last told of itself. It is for people: nothing is decided
// by it.
type Told struct {
	Incarnation uint64                   // of its ledger; 0: not told
	Version     string                   // of its program; "": not told
	Began       time.Duration            // when its agent began, on this node's clock; 0: not told
	RTT         map[string]time.Duration // of its last answer on each path
}

func (t *Told) clone() Told {
	c := *t
	c.RTT = maps.Clone(t.RTT)
	return c
}

func (h *Heartbeat) toldLocked(node string) *Told {
	t := h.mu.told[node]
	if t == nil {
		t = &Told{RTT: map[string]time.Duration{}}
		h.mu.told[node] = t
	}
	return t
}

// learnMeta notes what a peer's membership tells.
func (h *Heartbeat) learnMeta(node string, incarnation uint64, version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.toldLocked(node)
	if t.Incarnation != incarnation {
		h.log.Info("peer's incarnation", zap.String("peer", node), zap.Uint64("was", t.Incarnation), zap.Uint64("now", incarnation))
	}
	t.Incarnation, t.Version = incarnation, version
}

// learnAnswer notes what came with an answer to a probe.
func (h *Heartbeat) learnAnswer(node, path string, rtt time.Duration, payload []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.toldLocked(node)
	t.RTT[path] = rtt
	if up, ok := parseUptime(payload); ok {
		t.Began = max(h.cfg.Clock()-up, 1)
	}
}

const (
	metaVersion = 1
	metaBytes   = 9 // version, incarnation; what follows is the program's version
	versionMax  = 64

	uptimeBytes = 8 // in an answer to a probe: milliseconds
)

func appendMeta(b []byte, incarnation uint64, version string) []byte {
	b = binary.LittleEndian.AppendUint64(append(b, metaVersion), incarnation)
	return append(b, version[:min(len(version), versionMax)]...)
}

// parseMeta reads what a peer tells of itself. Later versions may change what
// follows the incarnation.
func parseMeta(b []byte) (incarnation uint64, version string, err error) {
	if len(b) < metaBytes {
		return 0, "", fmt.Errorf("node metadata of %d bytes, want at least %d", len(b), metaBytes)
	}
	if b[0] < metaVersion {
		return 0, "", fmt.Errorf("node metadata of version %d, want %d or later", b[0], metaVersion)
	}
	text := b[metaBytes:]
	return binary.LittleEndian.Uint64(b[1:]), strings.ToValidUTF8(string(text[:min(len(text), versionMax)]), "?"), nil
}

func appendUptime(b []byte, up time.Duration) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(up.Milliseconds()))
}

// parseUptime reads an answer's payload; one of an older version has none.
func parseUptime(b []byte) (time.Duration, bool) {
	const yearsMax = 100 * 365 * 24 * time.Hour
	if len(b) < uptimeBytes {
		return 0, false
	}
	ms := binary.LittleEndian.Uint64(b)
	return time.Duration(ms) * time.Millisecond, ms < uint64(yearsMax/time.Millisecond)
}

// Deafen has answers of a node over a path count for nothing, for a rehearsal:
// the path dies as one that fell silent does. Off takes it back.
func (h *Heartbeat) Deafen(node, path string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if on {
		h.mu.deaf[[2]string{node, path}] = true
		return
	}
	delete(h.mu.deaf, [2]string{node, path})
}

func (h *Heartbeat) deafTo(node, path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.deaf[[2]string{node, path}]
}
