package plan

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func threeIn10m() *FailureLog {
	return NewFailureLog(FailurePolicy{Threshold: 3, Within: 10 * time.Minute, Forget: time.Hour},
		map[string]FailurePolicy{"address:vip": {Threshold: 1, Within: time.Minute, Forget: 2 * time.Minute}})
}

func TestFailuresCountWithinTheWindow(t *testing.T) {
	l := threeIn10m()
	l.Add(0, "a", "one")
	l.Add(5*time.Minute, "a", "two")
	l.Add(11*time.Minute, "a", "three") // the first is out of the window
	f := l.Worst(11 * time.Minute)
	if f.Count != 2 || f.Exhausted(11*time.Minute) || f.What != "three" {
		t.Errorf("%+v", f)
	}
	l.Add(12*time.Minute, "a", "four")
	if f := l.Worst(12 * time.Minute); !f.Exhausted(12 * time.Minute) {
		t.Errorf("three within 10m: %+v", f)
	}
	// what was enough stays enough after the window, until it is forgotten
	if f := l.Worst(71 * time.Minute); !f.Exhausted(71 * time.Minute) {
		t.Errorf("before the hour is over: %+v", f)
	}
	if f := l.Worst(72 * time.Minute); f != (Failures{}) {
		t.Errorf("not forgotten: %+v", f)
	}
}

func TestFailuresAreOfAService(t *testing.T) {
	l := threeIn10m()
	for range 2 {
		l.Add(time.Minute, "a", "down")
		l.Add(time.Minute, "b", "down")
	}
	if f := l.Worst(time.Minute); f.Exhausted(time.Minute) {
		t.Errorf("two of each are not three of one: %+v", f)
	}
	l.Add(time.Minute, "address:vip", "stripped")
	if f := l.Worst(time.Minute); !f.Exhausted(time.Minute) || f.What != "stripped" || f.Limit != 1 {
		t.Errorf("its own threshold is 1: %+v", f)
	}
	if f := l.Worst(4 * time.Minute); f.Exhausted(4*time.Minute) || f.Count != 2 {
		t.Errorf("its own memory is 2m: %+v", f)
	}
	if !l.Forget("a") || l.Forget("a") || len(l.Of(4*time.Minute)) != 1 {
		t.Errorf("forgot a: %+v", l.Of(4*time.Minute))
	}
	if !l.Forget("") || l.Forget("") {
		t.Error("forgot all")
	}
}

// TestFailuresKeep is what holds of every history: never more than were added
// within the window, and nothing after the memory.
func TestFailuresKeep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := FailurePolicy{Threshold: rapid.IntRange(1, 5).Draw(t, "threshold"), Within: time.Minute, Forget: time.Duration(rapid.IntRange(30, 300).Draw(t, "forget")) * time.Second}
		l, now, at := NewFailureLog(p, nil), time.Duration(0), []time.Duration(nil)
		for range rapid.IntRange(1, 150).Draw(t, "times") {
			now += time.Duration(rapid.IntRange(0, 40).Draw(t, "pause")) * time.Second
			if len(at) > 0 && now >= at[len(at)-1]+p.Forget {
				at = nil
			}
			at = append(at, now)
			l.Add(now, "a", "down")
			want := 0
			for _, x := range at {
				if x > now-p.Within {
					want++
				}
			}
			if f := l.Worst(now); f.Count != min(want, thresholdMax) || f.Exhausted(now) != (want >= p.Threshold) || f.Remembered(now+p.Forget) {
				t.Fatalf("%d within %v: %+v", want, p.Within, f)
			}
		}
	})
}

// While services are being started, nothing is forgotten.
func TestFailuresOfSlowStarts(t *testing.T) {
	l := NewFailureLog(FailurePolicy{Threshold: 3, Within: 10 * time.Minute, Forget: 10 * time.Minute}, nil)
	now := time.Hour
	for n := 1; n <= 3; n++ {
		l.Hold(now)
		now += 16 * time.Minute
		if f := l.Worst(now); f.Count != n-1 || n > 1 && !f.Remembered(now) {
			t.Errorf("during attempt %d: %+v", n, f)
		}
		l.Release(now)
		l.Add(now, "a", "down")
		now += 10 * time.Second
	}
	if f := l.Worst(now); !f.Exhausted(now) || f.At != now-10*time.Second {
		t.Errorf("%+v", f)
	}
	now += 11 * time.Minute
	if f := l.Worst(now); f.Count != 0 {
		t.Errorf("still %+v", f)
	}
}

func TestFailurePolicy(t *testing.T) {
	good := FailurePolicy{Threshold: 3, Within: time.Minute, Forget: time.Minute}
	if err := good.Validate(time.Second); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*FailurePolicy){
		"none":   func(p *FailurePolicy) { p.Threshold = 0 },
		"many":   func(p *FailurePolicy) { p.Threshold = thresholdMax + 1 },
		"window": func(p *FailurePolicy) { p.Within = 3 * time.Second },
		"memory": func(p *FailurePolicy) { p.Forget = 3 * time.Second },
		"no end": func(p *FailurePolicy) { p.Forget = 400 * 24 * time.Hour },
	} {
		p := good
		spoil(&p)
		if p.Validate(time.Second) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
