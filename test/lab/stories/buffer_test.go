package stories

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// syncBuffer collects what a writer prints: "N nanoseconds" for each answer.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write takes what was printed.
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// tail is the last whole line.
func (b *syncBuffer) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.text.String()
	end := strings.LastIndexByte(all, '\n')
	if end < 0 {
		return all
	}
	return all[strings.LastIndexByte(all[:end], '\n')+1 : end]
}

// lastAck is when the last answer came; the zero time before the first.
func (b *syncBuffer) lastAck() time.Time {
	var n uint64
	var at int64
	if _, err := fmt.Sscanf(b.tail(), "%d %d", &n, &at); err != nil {
		return time.Time{}
	}
	return time.Unix(0, at)
}
