package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A difference is marked on disk before anybody hears of it.
func TestVerifyMarksADifferenceBeforeItIsTold(t *testing.T) {
	x := verifying(t, false, WritePages)
	x.theirs[8192], x.theirs[12288], x.ours[1<<19] = 1, 2, 3
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
		t.Fatal(err)
	}
	x.all()
	x.none(Problem)
	for {
		f, ok := x.find(WritePages, nil)
		if !ok {
			break
		}
		x.do(x.durable(f))
	}
	x.expect(Problem) // the first
	w := x.view()
	if w.State != VerifyDone || w.Differing != 3 || len(w.Found) != 2 || w.Found[0].Offset != 8192 || w.Found[0].Length != 8192 || w.Found[1].Offset != 1<<19 {
		t.Fatalf("%+v", w)
	}
	if x.eng.vols[0].bits.Count() != 3 || len(x.pages) == 0 {
		t.Fatalf("%d blocks are marked", x.eng.vols[0].bits.Count())
	}
	x.none(Proven)
	x.clean()
	// The next handshake finds the mark, and copies from the Primary.
	x.linkDown()
	x.greet(knows)
	x.expect(LedgerExclude)
}

// repairing is a verify that has found and marked one block, and sent it.
func repairing(t *testing.T) (*verifier, wire.Message) {
	t.Helper()
	x := verifying(t, false)
	x.theirs[8192] = 1
	if err := x.order(VerifyOrder{Volume: AllVolumes, Repair: true}); err != nil {
		t.Fatal(err)
	}
	x.all()
	return x, x.message(wire.Write)
}

func TestVerifyRepairsFromThePrimary(t *testing.T) {
	x, m := repairing(t)
	if m.Offset != 8192 || m.Length != 4096 || m.Flags != wire.Resync || len(x.pages) == 0 {
		t.Fatalf("%+v, %d pages on disk", m, len(x.pages))
	}
	x.submit(block.Write, 8192, 4096)
	x.none(LocalIO) // the block is still locked
	x.ack(m)
	x.message(wire.Write) // now the application's
	if x.eng.vols[0].bits.Count() != 1 {
		t.Fatal("the mark went before the peer has flushed (R4)")
	}
	x.ack(x.message(wire.Flush))
	w := x.view()
	if w.State != VerifyDone || w.Differing != 1 || w.Repaired != 1 || !w.Found[0].Repaired || x.eng.vols[0].bits.Count() != 0 {
		t.Fatalf("%+v, %d marked", w, x.eng.vols[0].bits.Count())
	}
	x.expect(Proven)
}

// A mark of an earlier verify is taken away by a repair, though the block is
// equal by now.
func TestVerifyRepairTakesOldMarks(t *testing.T) {
	x := verifying(t, false)
	x.eng.vols[0].bits.Set(4096, 4096)
	if err := x.order(VerifyOrder{Volume: AllVolumes, Repair: true}); err != nil {
		t.Fatal(err)
	}
	x.all()
	x.ack(x.message(wire.Write))
	x.ack(x.message(wire.Flush))
	if w := x.view(); w.State != VerifyDone || w.Differing+w.Repaired != 0 || x.eng.vols[0].bits.Count() != 0 {
		t.Fatalf("%+v", w)
	}
	x.clean()
}

func TestDemotionWaitsForARepair(t *testing.T) {
	x, m := repairing(t)
	x.do(Event{Kind: Demote})
	for range 3 {
		f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Flush })
		if !ok {
			break
		}
		x.ack(f.Message)
	}
	x.localDone(nil) // its own flush
	x.none(Reply)
	x.ack(m)
	x.expect(Reply)
	if got := x.eng.View().Role; got != state.Secondary {
		t.Fatalf("role %s", got)
	}
}

// What cannot be read is narrowed down to its block, and costs no disk.
func TestVerifyNarrowsDownWhatCannotBeRead(t *testing.T) {
	for kind, here := range map[string]bool{"unreadable_here": true, "unreadable_there": false} {
		x := verifying(t, false)
		if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
			t.Fatal(err)
		}
		for {
			f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify })
			if !ok {
				break
			}
			var err error
			status := wire.OK
			if m := &f.Message; m.Offset <= 20480 && 20480 < m.Offset+m.Length {
				if here {
					err = block.ErrIO
				} else {
					status = wire.IOError
				}
			}
			x.out = append([]Effect{f}, x.out...)
			x.answer(status)
			x.read(err)
		}
		w := x.view()
		if w.State != VerifyDone || w.Unreadable != 1 || len(w.Found) != 1 || w.Found[0].Offset != 20480 || w.Found[0].Length != 4096 || w.Found[0].Kind != kind {
			t.Fatalf("%s: %+v", kind, w)
		}
		if marked := x.eng.vols[0].bits.Count(); (marked == 0) != here {
			t.Fatalf("%s: %d marked", kind, marked)
		}
		if x.eng.View().Volumes[0].Disk != state.UpToDate {
			t.Fatalf("%s: a verify has cost a disk", kind)
		}
		x.expect(Problem)
		x.none(Proven)
		x.clean()
	}
}
