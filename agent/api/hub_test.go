package api_test

import (
	"testing"
	"time"

	"hapair/agent/api"
	"hapair/agent/apiv1"
)

// A number that no event has yet is of another life of the agent: whoever asks with it
// is told so, by an event that he can go on from, and has seen none of what is kept.
func TestEventsOfAnotherLife(t *testing.T) {
	for name, published := range map[string]int{"before the first event": 0, "after some": 3, "after more than is kept": api.KeptEvents + 10} {
		t.Run(name, func(t *testing.T) {
			h := api.NewHub("alpha", time.Now)
			for range published {
				h.Publish(apiv1.EventDisk, "pg", "x", nil)
			}
			kept := min(published, api.KeptEvents)
			s := h.Subscribe(1 << 40)
			defer s.Close()
			if len(s.C) != 1+kept {
				t.Fatalf("%d events, want a note and %d", len(s.C), kept)
			}
			note := <-s.C
			if note.Kind != apiv1.EventDropped || note.Seq != uint64(published-kept) || note.Time.IsZero() || note.Node != "alpha" {
				t.Errorf("the note is %+v", note)
			}
			for i := range kept {
				if e := <-s.C; e.Seq != note.Seq+uint64(i)+1 {
					t.Fatalf("event %d after the note has the number %d", i, e.Seq)
				}
			}
		})
	}
}

// The number of the newest event is of this life.
func TestEventsFromNowOn(t *testing.T) {
	h := api.NewHub("alpha", time.Now)
	for range 3 {
		s := h.Subscribe(h.Seq())
		if len(s.C) != 0 {
			t.Errorf("after %d: %+v", h.Seq(), <-s.C)
		}
		s.Close()
		h.Publish(apiv1.EventDisk, "pg", "x", nil)
	}
}
