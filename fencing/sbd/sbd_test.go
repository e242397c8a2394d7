package sbd

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hapair/fencing/device"
)

const bites = 10 * time.Second

// inWorld is a pair that has met.
func inWorld(t *testing.T, story func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.boot(bites).start()
		w.talk()
		story(t, w)
		w.beta.reset()
		synctest.Wait()
	})
}

// run lets time pass; the two hear each other while they can.
func (w *world) run(d time.Duration) {
	for end := w.now() + d; w.now() < end; {
		w.talk()
		time.Sleep(100 * time.Millisecond)
	}
}

func (w *world) set(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *world) isOff() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.beta.off
}

func (w *world) box() *machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.beta
}

// A node that is cut off finds its pill within a second or so and goes down at once;
// one that has lost its power is off all the same. Both are confirmed when the wait is over.
func TestPill(t *testing.T) {
	for name, end := range map[string]func(w *world){"cut off": func(w *world) {}, "without power": func(w *world) { w.beta.reset() }} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.run(time.Minute)
				w.set(func() { w.linked = false })
				end(w)
				began := w.now()
				time.AfterFunc(2*time.Second, func() {
					if !w.isOff() {
						t.Error("it does not go down at once")
					}
				})
				out, said, counts, over := w.fence(time.Minute)
				if took := w.now() - began; out != device.Confirmed || !counts || !over || took != Wait(bites, bites/2) {
					t.Errorf("%v after %v: %s", out, took, said)
				}
			})
		})
	}
}

// A node that stands still, or whose agent was killed, is reset by its watchdog before
// the wait is over.
func TestPillThatNobodyReads(t *testing.T) {
	for name, ill := range map[string]func(w *world){
		"it stands still": func(w *world) { w.beta.process.paused = make(chan struct{}) }, "killed": func(w *world) { go w.beta.process.end() },
		"its disk is gone": func(w *world) { w.beta.broken = true },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.run(time.Minute)
				w.set(func() { w.linked = false; ill(w) })
				if out, said, counts, over := w.fence(time.Minute); out != device.Confirmed || !counts || !over {
					t.Errorf("%v: %s; it is off: %v", out, said, over)
				}
			})
		})
	}
}

// What leaves a doubt whether a pill would work is refused, and nothing is written.
func TestRefused(t *testing.T) {
	for want, ill := range map[string]func(w *world){
		"its watchdog is not armed":      func(w *world) { w.beta.stop() },
		"this node has not met beta":     func(w *world) { w.hasMet = false },
		"that it does not read the disk": func(w *world) { w.met = "" },
		"not of the machine that was met": func(w *world) {
			w.met = (&Slot{Life: Name("boot 1"), Machine: Name("another"), Disk: Name("disk")}).Word()
		},
		"of a release that says something": func(w *world) { w.met = Name("boot 1").String() + "." + Name("machine").String() },
		"the path is down":                 func(w *world) { w.broken = true },
		"is damaged":                       func(w *world) { w.store[1+2][300] ^= 1; w.store[1+2][40] ^= 1 },
		"itself is told to go down": func(w *world) {
			a, err := take(&handle{w, nil}, owner)
			if err == nil {
				err = a.putMail("alpha", Mail{Pill: true, To: Name("alpha"), From: "beta"})
			}
			if err != nil {
				panic(err)
			}
		},
	} {
		t.Run(want, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.run(time.Minute)
				w.set(func() { w.linked = false })
				ill(w)
				mail := w.store[2+2]
				if out, said, _, _ := w.fence(time.Minute); out != device.Refused || !strings.Contains(said, want) || mail != w.store[2+2] {
					t.Errorf("%v: %s", out, said)
				}
			})
		})
	}
	t.Run("too little time", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			if out, said, _, _ := w.fence(20 * time.Second); out != device.Refused || !strings.Contains(said, "timeout is to be 39.7s") {
				t.Errorf("%v: %s", out, said)
			}
		})
	})
}

// Any doubt after the pill was written is Unknown.
func TestUnknown(t *testing.T) {
	for want, ill := range map[string]func(w *world){
		"the path is down": func(w *world) { w.set(func() { w.broken = true }) },
		"has number 0": func(w *world) {
			w.set(func() { w.store[2+2] = [recordBytes]byte((&Mail{Disk: Name("disk")}).encode()) })
		},
		"has written to the disk": func(w *world) { w.beta.stop() },
		"is not known that on the s": func(w *world) {
			other := Slot{Disk: Name("disk"), Node: "beta", Life: Name("new"), Machine: Name("new")}
			w.set(func() { w.store[1+2] = [recordBytes]byte(other.encode()) })
		},
	} {
		t.Run(want, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.run(time.Minute)
				w.set(func() {
					w.linked = false
					w.beta.process.paused = make(chan struct{}) // it does not see the pill
				})
				time.AfterFunc(5*time.Second, func() {
					w.set(func() {
						close(w.beta.process.paused)
						w.beta.process.paused = nil
						w.beta.broken = want != "has written to the disk"
					})
					ill(w)
				})
				if want == "has written to the disk" {
					w.set(func() { w.beta.process.reader.cfg.Life = Name("deaf") }) // it does not heed the pill
				}
				if out, said, _, _ := w.fence(time.Minute); out != device.Unknown || !strings.Contains(said, want) {
					t.Errorf("%v: %s", out, said)
				}
			})
		})
	}
}

// Two that meet again while one waits: the fence is broken off, and the pill taken
// back; who has not seen it yet goes on.
func TestMetAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() {
			w.linked = false
			w.beta.broken = true
		})
		time.AfterFunc(3*time.Second, func() {
			w.set(func() { w.linked = true })
			go w.run(40 * time.Second)
		})
		out, said, counts, _ := w.fence(time.Minute)
		if out != device.Unknown || counts || w.now() > 64*time.Second {
			t.Errorf("%v: %s", out, said)
		}
		time.Sleep(2 * time.Second)
		w.set(func() { w.beta.broken = false })
		time.Sleep(50 * time.Second)
		if w.isOff() {
			t.Error("it went down by a pill that was taken back")
		}
	})
}

// A disk that is lost resets nobody while the two hear each other, and whoever does
// not hear the other then is reset.
func TestDiskIsLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.set(func() { w.beta.broken = true })
		w.run(time.Hour)
		if w.isOff() {
			t.Fatal("reset for want of the disk")
		}
		w.set(func() { w.beta.broken = false })
		w.run(time.Minute)
		w.set(func() { w.linked = false })
		w.run(time.Hour)
		if w.isOff() {
			t.Fatal("reset though it reads")
		}
		w.set(func() { w.beta.broken = true })
		began := w.now()
		w.run(bites/2 + bites + 2*time.Second)
		if !w.isOff() {
			t.Errorf("it runs, %v after it had lost all", w.now()-began)
		}
	})
}

// A stop that cannot say that the watchdog is disarmed leaves it armed.
func TestStopWithoutDisk(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.beta.broken = true })
		w.beta.stop()
		time.Sleep(bites + time.Second)
		if !w.isOff() {
			t.Error("it runs, and others rely on its watchdog")
		}
	})
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.beta.stop()
		time.Sleep(time.Hour)
		if w.isOff() {
			t.Error("reset after a stop in order")
		}
	})
}

// Who was fenced and boots takes its pill away and reads on; an agent that is started
// again in the same boot does not.
func TestPillOfAnEarlierLife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.linked = false })
		w.beta.process.end() // killed: the pill is not seen
		w.set(func() { w.beta.process = nil })
		go w.fence(time.Minute)
		time.Sleep(2 * time.Second)
		w.beta.start()
		if !w.isOff() {
			t.Fatal("an agent that is started again does not heed the pill")
		}
		time.Sleep(time.Minute)
		w.boot(bites).start()
		w.set(func() { w.linked = true })
		w.run(time.Minute)
		if m := w.mailOfBeta(t); w.isOff() || m.Pill {
			t.Errorf("off: %v; %+v", w.isOff(), m)
		}
		w.set(func() { w.linked = false })
		if out, said, counts, over := w.fence(time.Minute); out != device.Confirmed || !counts || !over {
			t.Errorf("fenced again: %v: %s", out, said)
		}
	})
}

// Who has lost its power and boots while the link is cut says so on the disk: whom the
// other one had met is over, and nobody waits.
func TestBootedMeanwhile(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.linked = false })
		w.beta.reset()
		w.boot(bites).start()
		began := w.now()
		out, said, counts, over := w.fence(time.Minute)
		if out != device.Confirmed || !counts || !over || w.now() != began || w.isOff() || !strings.Contains(said, "another life") {
			t.Errorf("%v after %v: %s; off: %v", out, w.now()-began, said, w.isOff())
		}
	})
}

// TestChaos: whatever happens to the disk, the link, the agent and the machine, whom a
// fence has confirmed, and has not met since, is off.
func TestChaos(t *testing.T) {
	confirmed, unknown, refused, resets := 0, 0, 0, 0
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			w, rnd := newWorld(), rand.New(rand.NewPCG(seed, 1))
			timeout := time.Duration(2+rnd.IntN(9)) * time.Second
			w.boot(timeout).start()
			for round := range 40 {
				w.run(time.Duration(rnd.IntN(15_000)) * time.Millisecond)
				w.blow(rnd, timeout)
				if w.isOff() {
					resets++
				}
				if rnd.IntN(3) > 0 {
					continue
				}
				meanwhile := rand.New(rand.NewPCG(seed, uint64(2+round)))
				go func() {
					for range 8 {
						w.run(time.Duration(meanwhile.IntN(6_000)) * time.Millisecond)
						w.blow(meanwhile, timeout)
					}
				}()
				out, said, counts, over := w.fence(Takes(timeout) + time.Second)
				if counts && !over {
					t.Fatalf("seed %d at %v: confirmed, and it runs: %s", seed, w.now(), said)
				}
				switch {
				case counts:
					confirmed++
				case out == device.Unknown:
					unknown++
				default:
					refused++
				}
			}
			time.Sleep(10 * time.Minute) // what goes on meanwhile ends
			w.box().reset()
			synctest.Wait()
		})
	}
	t.Logf("%d confirmed, %d unknown, %d refused; %d times it was off", confirmed, unknown, refused, resets)
	if confirmed < 200 || unknown < 100 || refused < 100 {
		t.Error("too little of something happened to show anything")
	}
}

// blow does something to the world.
func (w *world) blow(rnd *rand.Rand, timeout time.Duration) {
	w.mu.Lock()
	m := w.beta
	p, off := m.process, m.off
	w.mu.Unlock()
	switch n := rnd.IntN(12); {
	case off && n < 6:
		w.boot(timeout).start()
	case n < 3:
		w.set(func() { w.linked = !w.linked })
	case n == 3:
		w.set(func() { m.broken = !m.broken })
	case n == 4:
		w.set(func() { w.broken = !w.broken && rnd.IntN(2) == 0 })
	case n < 7 && p != nil:
		w.set(func() {
			if p.paused == nil {
				p.paused = make(chan struct{})
			}
		})
		time.Sleep(time.Duration(rnd.IntN(int(timeout * 3 / 2))))
		w.set(func() {
			if p.paused != nil {
				close(p.paused)
				p.paused = nil
			}
		})
	case n == 7 && p != nil:
		p.end() // killed
		w.set(func() {
			if m.process == p {
				m.process = nil
			}
		})
	case n == 8:
		m.stop()
	case n < 11 && p == nil && !off:
		m.start()
	}
}
