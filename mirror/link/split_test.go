package link

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"hapair/mirror/wire"

	"pgregory.net/rapid"
)

var zeros = make([]byte, 1<<20)

// splitWorld is a queue that a data stream and lanes share, and what a reader makes
// of what they carry.
type splitWorld struct {
	t     *rapid.T
	p     splitter
	queue []wire.Message
	sent  uint64         // put into the queue
	data  []wire.Message // what the data stream carries
	lanes [3][]uint64    // what the lanes carry
	order []wire.Message // what was remembered
	base  uint64         // how many were, before those
	read  uint64         // of all, by the reader
}

func (w *splitWorld) send() {
	for range rapid.IntRange(1, 60).Draw(w.t, "messages") {
		m := wire.Message{Kind: wire.Write, ID: w.sent, Data: zeros[:rapid.SampledFrom([]int{0, 512, 4096, 65536, 1 << 20}).Draw(w.t, "bytes")]}
		w.queue, w.sent = append(w.queue, m), w.sent+1
		if w.p.on {
			w.p.queued(sizeOf(&m))
		}
	}
}

// front is what the sender of the data stream does.
func (w *splitWorld) front() {
	var batch []wire.Message
	batch, w.queue = w.p.front(nil, w.queue)
	if len(batch) > batchFrames {
		w.t.Fatalf("%d frames at once", len(batch))
	}
	w.data = append(w.data, batch...)
	w.order = w.p.order(w.order, batch)
}

// cut is what the sender of a lane does.
func (w *splitWorld) cut() {
	lane, ahead, want := rapid.IntRange(0, 2).Draw(w.t, "lane"), rapid.Int64Range(0, 4<<20).Draw(w.t, "ahead"), rapid.Int64Range(0, 4<<20).Draw(w.t, "want")
	var run []wire.Message
	run, w.queue = w.p.cut(nil, w.queue, lane, ahead, want)
	bytes := int64(0)
	for i := range run {
		w.lanes[lane] = append(w.lanes[lane], run[i].ID)
		bytes += sizeOf(&run[i])
	}
	if len(run) > runMessagesMax || len(run) > 0 && (bytes > min(want, runBytesMax) || bytes < runBytesMin) {
		w.t.Fatalf("a run of %d messages, %d bytes, wanted %d", len(run), bytes, want)
	}
}

// receive reads what the data stream carries, and for each mark what the lane does.
func (w *splitWorld) receive() {
	for i := range w.data {
		ids := []uint64{w.data[i].ID}
		if isMark(&w.data[i]) {
			lane, count, err := parseMark(&w.data[i], len(w.lanes))
			if err != nil || count > len(w.lanes[lane]) {
				w.t.Fatalf("%+v: %v, %d are there", w.data[i], err, len(w.lanes[lane]))
			}
			ids = w.lanes[lane][:count]
			w.lanes[lane] = w.lanes[lane][count:]
		}
		for _, id := range ids {
			if id != w.read {
				w.t.Fatalf("message %d is read after %d", id, w.read)
			}
			w.read++
		}
	}
	w.data = nil
}

// broke is a strand that breaks at any moment: what was not read is queued again.
func (w *splitWorld) broke() {
	if w.p.on {
		w.queue = w.p.order(w.order[w.read-w.base:], w.queue)
	}
	w.order, w.base, w.data, w.lanes, w.p = nil, w.read, nil, [3][]uint64{}, splitter{}
	if len(w.queue) != int(w.sent-w.read) {
		w.t.Fatalf("%d are queued again, %d were not read", len(w.queue), w.sent-w.read)
	}
	for i := range w.queue {
		if w.queue[i].ID != w.read+uint64(i) {
			w.t.Fatalf("message %d is queued in the place of %d", w.queue[i].ID, w.read+uint64(i))
		}
	}
}

func (w *splitWorld) free() (bytes int64) {
	for i := range w.queue[w.p.marked:] {
		if isMark(&w.queue[w.p.marked+i]) {
			w.t.Fatalf("a mark at %d, the last is said to be before %d", i, w.p.marked)
		}
		bytes += sizeOf(&w.queue[w.p.marked+i])
	}
	return bytes
}

// Whoever takes what and whenever it breaks: each message is read once, in the order
// in which they were queued.
func TestSplitKeepsTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &splitWorld{t: t}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			what := rapid.IntRange(0, 20).Draw(t, "what")
			switch {
			case what < 5:
				w.send()
			case !w.p.on:
				w.p.begin(w.queue)
			case what < 10:
				w.front()
			case what < 15:
				w.cut()
			case what < 20:
				w.receive()
			default:
				w.broke()
			}
			if got := w.free(); w.p.on && got != w.p.free {
				t.Fatalf("%d bytes are free, it counts %d", got, w.p.free)
			}
		}
		if !w.p.on {
			w.p.begin(w.queue)
		}
		for len(w.queue) > 0 {
			w.front()
		}
		w.receive()
		if w.read != w.sent || len(w.p.away) != 0 {
			t.Fatalf("%d of %d were read, %d are away", w.read, w.sent, len(w.p.away))
		}
	})
}

// A lane gets what it can send while the data stream sends what lies before; one that is
// not known, little; one that was slow once is tried again in the end.
func TestShare(t *testing.T) {
	const ms = time.Millisecond
	fast, slow := pace{}, pace{}
	if ahead, want := share(64<<20, 0, 0, &fast, &slow, 0); want != probeBytes || ahead != 10*want {
		t.Errorf("an unknown one gets %d after %d", want, ahead)
	}
	if _, want := share(256<<10, 0, 0, &fast, &slow, 0); want != 64<<10 {
		t.Errorf("an unknown one gets %d of little", want)
	}
	if _, want := share(4<<20, 0, 1<<20, &fast, &slow, 0); want != 1<<20 {
		t.Errorf("an unknown one gets %d of messages that are long", want)
	}
	for i := range 50 {
		fast.add(10<<20, 10*ms, time.Duration(i+1)*10*ms)
		slow.add(1<<20, 10*ms, time.Duration(i+1)*10*ms)
	}
	now := 500 * ms
	near := func(got, want int64) bool { return got > want-want/100 && got < want+want/100 }
	if ahead, want := share(11<<20, 0, 0, &fast, &slow, now); !near(want, 1<<20) || !near(ahead, 10<<20) {
		t.Errorf("the slow one gets %d after %d", want, ahead)
	}
	if ahead, want := share(11<<20, 0, 0, &slow, &fast, now); want != runBytesMax || !near(ahead, runBytesMax/10) {
		t.Errorf("the fast one gets %d after %d", want, ahead)
	}
	if ahead, want := share(1<<20, 1<<20, 0, &fast, &fast, now); !near(want, 1<<20) || ahead > 1<<14 {
		t.Errorf("%d after %d, while the other one is busy", want, ahead)
	}
	if _, want := share(enough(256<<10, &fast, &slow, now), 0, 0, &fast, &slow, now); !near(want, 256<<10) {
		t.Errorf("it gets %d, wanted 256 KiB", want)
	}
	_, soon := share(5<<20, 0, 0, &fast, &slow, now)
	if _, late := share(5<<20, 0, 0, &fast, &slow, now+paceFades); late < 18*soon/10 {
		t.Errorf("%d, and %d after a long time", soon, late)
	}
}

// What a socket has room for says nothing of its path; what it waits for does.
func TestPace(t *testing.T) {
	const ms = time.Millisecond
	var p pace
	p.add(unsentMax, 1, ms)
	if p.rate() != 0 {
		t.Fatalf("%+v", p)
	}
	p.add(1<<20, 10*ms, 11*ms)
	if got := p.rate() * 1e9 / (100 << 20); got < 0.99 || got > 1.01 {
		t.Fatalf("%+v, %f of 100 MiB/s", p, got)
	}
	p.add(unsentMax/2, 1, 20*ms)
	if got := p.rate() * 1e9 / (100 << 20); got < 0.99 || got > 1.01 {
		t.Fatalf("%+v after a rest, %f of 100 MiB/s", p, got)
	}
}

// The hold doubles, within bounds, and is forgotten.
func TestHold(t *testing.T) {
	var h hold
	now := time.Hour
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		h.since = now
		h.lost(now)
		if h.length != want*time.Second || h.until != now+h.length {
			t.Fatalf("%+v, wanted %d s", h, want)
		}
		now = h.until
	}
	h.since = now
	h.lost(now + forgiven*holdMax + 1)
	if h.length != holdMin {
		t.Fatalf("%+v after a long time", h)
	}
}

// What a mark looks like on the wire is for good.
func TestMarkGolden(t *testing.T) {
	m := mark(2, 17)
	frame, err := wire.AppendFrame(nil, &m)
	if err != nil {
		t.Fatal(err)
	}
	const want = "4841504d010e00000000000000000000020000000000000020000000000000000000000000000000110000000000000000000000000000000000000035a8f456"
	if got := hex.EncodeToString(frame); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// Nothing but a mark within its bounds is taken for one.
func FuzzMark(f *testing.F) {
	for _, m := range []wire.Message{mark(0, 1), mark(2, runMessagesMax), mark(3, 1), mark(0, 0), {Kind: wire.Ping}, {Kind: wire.Pong, Token: isElsewhere, Length: 1}} {
		f.Add(byte(m.Kind), m.ID, m.Token, m.Offset, m.Length)
	}
	f.Fuzz(func(t *testing.T, kind byte, id, token, offset, length uint64) {
		m := wire.Message{Kind: wire.Kind(kind), ID: id, Token: token, Offset: offset, Length: length}
		lane, count, err := parseMark(&m, lanesMax)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if again := mark(lane, count); again.Kind != m.Kind || again.ID != id || again.Token != token || again.Offset != offset || again.Length != length {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}
