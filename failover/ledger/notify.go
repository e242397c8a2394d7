package ledger

import (
	"strconv"
	"sync"
)

// notifier runs callbacks one after another in a goroutine of its own, so that
// none is called with a lock held and a slow one delays only those behind it.
// Items under the same key are replaced by the newest while they wait.
type notifier struct {
	mu     sync.Mutex
	order  []string
	items  map[string]func()
	serial int
	wake   chan struct{}
	stop   chan struct{}
	done   chan struct{}
}

func newNotifier() *notifier {
	n := &notifier{
		items: map[string]func(){}, wake: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go n.run()
	return n
}

// post queues fn; a non-empty key replaces what waits under it.
func (n *notifier) post(key string, fn func()) {
	n.mu.Lock()
	if key == "" {
		n.serial++
		key = "\x00" + strconv.Itoa(n.serial)
	}
	if _, waiting := n.items[key]; !waiting {
		n.order = append(n.order, key)
	}
	n.items[key] = fn
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notifier) next() func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.order) == 0 {
		return nil
	}
	key := n.order[0]
	n.order = n.order[1:]
	fn := n.items[key]
	delete(n.items, key)
	return fn
}

func (n *notifier) run() {
	defer close(n.done)
	for {
		for fn := n.next(); fn != nil; fn = n.next() {
			fn()
		}
		select {
		case <-n.wake:
		case <-n.stop:
			for fn := n.next(); fn != nil; fn = n.next() {
				fn()
			}
			return
		}
	}
}

// close delivers what is queued and ends. It must not be called from a callback.
func (n *notifier) close() {
	close(n.stop)
	<-n.done
}
