package peering

import "testing"

// Of paths that are all down, one that is well again comes first.
func TestPathWell(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.beta.Handle("raft", echo)
	w.alpha.PathDown("beta", "crossover", nil)
	w.alpha.PathDown("beta", "lan", nil)
	w.alpha.PathWell("beta", "lan")
	if c, err := w.alpha.Dial(testContext(t), "beta", "", "raft"); err != nil || c.Path != "lan" {
		t.Fatalf("%+v, %v", c, err)
	}
	w.alpha.PathUp("beta", "crossover")
	if c, err := w.alpha.Dial(testContext(t), "beta", "", "raft"); err != nil || c.Path != "crossover" {
		t.Fatalf("%+v, %v", c, err)
	}
}

// What went over a path is counted while its streams live, and after they ended.
func TestTraffic(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.beta.Handle("raft", echo)
	c, err := w.alpha.Dial(testContext(t), "beta", "lan", "raft")
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, make([]byte, 100_000))
	live := w.alpha.Traffic("beta")
	lan := live["lan"]
	if len(live) != 1 || lan.Streams != 1 || lan.BytesIn < 100_000 || lan.BytesOut == 0 || lan.RoundTrip <= 0 || c.SegmentBytes() <= 0 {
		t.Fatalf("%+v, segments of %d", live, c.SegmentBytes())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	over := w.alpha.Traffic("beta")["lan"]
	if over.Streams != 0 || over.BytesIn != lan.BytesIn || over.BytesOut < lan.BytesOut || c.SegmentBytes() != 0 {
		t.Fatalf("%+v after %+v", over, lan)
	}
	if len(w.alpha.Traffic("gamma")) != 0 {
		t.Fatal("nobody spoke with gamma")
	}
}
