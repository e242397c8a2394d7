package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/aftersplit"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// tells adds what a release with FeatureSplit says to a hello.
func tells(h *wire.HelloBody, change func(*wire.Split)) {
	h.Split = &wire.Split{Policies: aftersplit.Default, Volumes: make([]wire.SplitVolume, len(h.Volumes))}
	if change != nil {
		change(h.Split)
	}
}

// apart is a hello of a copy that was written apart from generation 77, as it is
// told with policies.
func apart(current genid.ID, dirty uint64, policies string, change func(*wire.HelloBody)) func(*wire.HelloBody) {
	return func(h *wire.HelloBody) {
		h.Volumes[0].Gen, h.Volumes[0].DirtyBlocks = genid.Set{Current: current, Bitmap: 77}.Words(), dirty
		tells(h, func(s *wire.Split) { s.Policies = [3]string(strings.Fields(policies)) })
		if change != nil {
			change(h)
		}
	}
}

func primary(h *wire.HelloBody)   { h.Role = state.Primary }
func elder(h *wire.HelloBody)     { h.Split.Volumes[0].Elder = true }
func givesUp(h *wire.HelloBody)   { h.Split.GivesUp = true }
func putBack(h *wire.HelloBody)   { h.Split.PutBack = true }
func untold(h *wire.HelloBody)    { h.Split = nil }
func onlyAlpha(h *wire.HelloBody) { h.Record = wire.Record{Token: 7, InSync: []string{"alpha"}} }
func onlyBeta(h *wire.HelloBody)  { h.Record = wire.Record{Token: 9, InSync: []string{"beta"}} }

func both(of ...func(*wire.HelloBody)) func(*wire.HelloBody) {
	return func(h *wire.HelloBody) {
		for _, f := range of {
			f(h)
		}
	}
}

// What the policies make of a split brain, and what keeps them from it.
func TestPoliciesInAHandshake(t *testing.T) {
	const least, all = "discard-least-changes disconnect disconnect", "discard-older-primary discard-secondary call-pri-lost-after-sb"
	for name, c := range map[string]struct {
		alpha, beta func(*wire.HelloBody)
		victim      string
		says        string
	}{
		"none":                 {apart(80, 1, "disconnect disconnect disconnect", nil), apart(81, 2, "disconnect disconnect disconnect", nil), "", "how to keep it"},
		"least":                {apart(80, 1, least, nil), apart(81, 2, least, nil), "alpha", "alpha changed 1 blocks, beta 2; so alpha gives up"},
		"not for one":          {apart(80, 1, least, primary), apart(81, 2, least, nil), "", "one_primary is disconnect: an operator decides"},
		"secondary":            {apart(80, 1, all, nil), apart(81, 2, all, primary), "alpha", "alpha is Secondary; so alpha gives up"},
		"two":                  {apart(80, 1, all, primary), apart(81, 2, all, both(primary, elder)), "beta", "two_primaries is call-pri-lost-after-sb"},
		"differ":               {apart(80, 1, least, nil), apart(81, 2, all, nil), "", "the two nodes have different ones: alpha has"},
		"earlier release":      {apart(80, 1, least, nil), apart(81, 2, least, untold), "", "how to keep it"},
		"put back":             {apart(80, 1, least, nil), apart(81, 2, least, putBack), "", "until hactl split-brain drop"},
		"only copy":            {apart(80, 1, least, onlyAlpha), apart(81, 2, least, onlyAlpha), "", "but the ledger calls only its copy current"},
		"ledgers of their own": {apart(80, 1, least, onlyAlpha), apart(81, 2, least, onlyBeta), "alpha", "so alpha gives up"},
		"unrelated":            {apart(80, 1, least, nil), both(apart(81, 2, least, nil), func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 90}.Words() }), "", "no common ancestor"},
		"bitmaps of no use":    {both(apart(80, 1, least, nil), func(h *wire.HelloBody) { h.Volumes[0].Gen[1], h.Volumes[0].Gen[2] = 79, 77 }), apart(81, 2, least, nil), "", "how much was changed is not known"},
	} {
		a, b := says("alpha", c.alpha), says("beta", c.beta)
		here, there := judge(a, b), judge(b, a)
		if here.refuse == nil || here.victim != c.victim || there.victim != c.victim || !strings.Contains(here.refuse.Text, c.says) {
			t.Errorf("%s: %q here, %q there: %v", name, here.victim, there.victim, here.refuse)
		}
	}
}

// One side gives up: the other is the source, whatever its number of changes, of
// what both bitmaps say; but not against the ledger, and not a Primary.
func TestGivingUpInAHandshake(t *testing.T) {
	const none = "disconnect disconnect disconnect"
	kept, given := apart(80, 1, none, nil), apart(81, 2, none, givesUp)
	for _, c := range []handshake{
		{name: "given up", alpha: kept, beta: given, action: actSource, wantSentence: "beta gives up what only it has"},
		{name: "the other way round", alpha: given, beta: kept, action: actTarget, wantSentence: "alpha gives up what only it has"},
		{name: "it alone wrote", alpha: func(h *wire.HelloBody) { tells(h, nil) }, beta: given, action: actSource, wantSentence: "beta gives up what only it has"},
		{name: "older base", alpha: kept, beta: both(given, func(h *wire.HelloBody) { h.Volumes[0].Gen[1], h.Volumes[0].Gen[2] = 79, 77 }), action: actSource, full: true,
			wantSentence: "beta gives up what only it has"},
		{name: "both", alpha: both(kept, givesUp), beta: given, status: wire.SplitBrain, lasting: true,
			wantSentence: "volume 0: both copies were written without the other; hactl explain on both nodes tells what each has, and how to keep it"},
		{name: "no split brain", alpha: func(h *wire.HelloBody) { tells(h, nil) }, beta: func(h *wire.HelloBody) { tells(h, nil); givesUp(h) }, action: actNothing,
			wantSentence: "both are in the in-sync set and nothing is dirty"},
		{name: "unrelated", alpha: both(kept, gen(90, 0)), beta: given, status: wire.Unrelated, lasting: true, wantSentence: "volume 0: the copies have no common ancestor; was a disk swapped?"},
		{name: "for an empty copy", alpha: both(kept, gen(genid.JustCreated, 0)), beta: given, action: actTarget, full: true, wantSentence: "our copy is new"},
		{name: "only it is current", alpha: both(kept, onlyBeta), beta: both(given, onlyBeta), status: wire.BadState, wantSentence: "beta gives up what it has, and the ledger calls only that current"},
		{name: "Primary", alpha: kept, beta: both(given, primary), status: wire.BadState, wantSentence: "the Primary would have to become the target of a resync (beta gives up what only it has)"},
	} {
		c.judge(t)
	}
}

// splitFrom is a Secondary that was written apart, and has met its peer, which was
// too.
func splitFrom(t *testing.T, policies aftersplit.Policies) *box {
	t.Helper()
	s := equal()
	s.super.Gen, s.super.Since, s.super.Elder = genid.Set{Current: 80, Bitmap: 77}, 1700000000, true
	s.record.InSync = []string{"beta"}
	b := newBox(t, s)
	b.do(Event{Kind: Configure, Settings: Settings{AfterSplit: policies}})
	b.greet(func(h *wire.HelloBody) {
		apart(81, 2, "disconnect disconnect disconnect", elder)(h)
		h.Split.Policies, h.Split.Volumes[0].Since = policies, 1700000001
	})
	b.expect(StandAlone)
	b.linkDown()
	return b
}

func TestBothKnowWhatTheOtherHas(t *testing.T) {
	b := splitFrom(t, aftersplit.Default)
	b.none(SplitVictim)
	v := b.eng.View()
	want := RivalVolume{DirtyBytes: 8192, Since: 1700000001, Elder: true, Current: 81, Base: 77, Counted: true}
	if r := v.Rival; r == nil || !r.Told || r.Because != "" || len(r.Volumes) != 1 || r.Volumes[0] != want {
		t.Fatalf("rival %+v", r)
	}
	if x := v.Volumes[0]; x.Since != 1700000000 || !x.Elder || x.Base != 77 {
		t.Fatalf("this side: %+v", x)
	}
}

// The policies name this node: it is told so, and nothing else changes.
func TestTheVictimIsTold(t *testing.T) {
	b := splitFrom(t, aftersplit.Policies{"discard-node-alpha", "disconnect", "disconnect"})
	if f := b.expect(SplitVictim); !strings.Contains(f.Text, "alpha gives up") {
		t.Fatal(f.Text)
	}
	if v := b.eng.View(); v.Volumes[0].Disk != state.Outdated || v.Rival.Victim != "alpha" {
		t.Fatalf("%+v %+v", v.Volumes[0], v.Rival)
	}
}

// A side that gives up says so in every hello until the resync has begun; its copy
// is as it was until then.
func TestTheVictimIsOverwrittenWhenBothKnow(t *testing.T) {
	b := splitFrom(t, aftersplit.Default)
	b.do(Event{Kind: DiscardData})
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	for range 2 { // the first session ends before anything was agreed on
		b.linkUp()
		m := b.message(wire.Hello)
		if h, err := wire.ParseHello(m.Data); err != nil || !h.Split.GivesUp {
			t.Fatalf("%+v, %v", h.Split, err)
		}
		b.receive(b.peerHello(wire.Hello, apart(81, 2, "disconnect disconnect disconnect", nil)))
		if g := b.super[0]; g.Gen.Current != 80 || g.Disk != state.Outdated {
			t.Fatalf("nothing was sent, and the copy is %+v", g)
		}
		if b.link == 2 {
			b.linkDown()
		}
	}
	source := genid.Set{Current: 81, Bitmap: 77}
	b.receive(wire.Message{Kind: wire.SyncStart})
	if g := b.super[0]; g.Gen.Current != source.SyncID() || g.Disk != state.Inconsistent || g.Since != 0 || g.Elder {
		t.Fatalf("being filled, the copy is %+v", g)
	}
	b.message(wire.BitmapDone)
	b.linkDown()
	b.linkUp()
	m := b.message(wire.Hello)
	if h, err := wire.ParseHello(m.Data); err != nil || h.Split.GivesUp {
		t.Fatalf("it has given up, and does so again: %+v, %v", h.Split, err)
	}
}

// Whose word it was does not outlive what it was said about.
func TestWhoIsPromotedGivesUpNoMore(t *testing.T) {
	b := splitFrom(t, aftersplit.Default)
	b.do(Event{Kind: DiscardData})
	b.expect(Reply)
	b.record = wire.Record{Token: 5, InSync: []string{"alpha"}}
	b.promote()
	if b.eng.hello().Split.GivesUp {
		t.Fatal("a Primary gives up")
	}
	b.do(Event{Kind: DiscardData})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("a Primary gave up")
	}
}

// Kept, this copy sends what either has written, after the ledger has said that it may.
func TestTheKeptSideSendsWhatEitherWrote(t *testing.T) {
	b := ahead(t)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.greet(func(h *wire.HelloBody) {
		apart(200, 1, "disconnect disconnect disconnect", givesUp)(h)
		h.Volumes[0].Gen[1] = 77
	})
	b.none(StandAlone)
	b.none(PeerSend)
	b.ledger()
	b.message(wire.State)
	start := b.message(wire.SyncStart)
	b.peer = genid.Set{Current: 200, Bitmap: 77}.Begin(b.super[0].Gen)
	b.receive(b.peerHello(wire.State, b.asTarget))
	theirs := b.eng.vols[0].bits
	page := slices.Clone(theirs.Page(0, nil))
	page[1] |= 1 // block 8
	b.receive(wire.Message{Kind: wire.Bitmap, Data: page, Length: uint64(len(page)), Token: start.Token})
	b.receive(wire.Message{Kind: wire.BitmapDone})
	if got := b.eng.vols[0].bits.Count(); got != 2 || !theirs.Any(8*4096, 1) || !theirs.Any(0, 1) {
		t.Fatalf("%d blocks are to be sent", got)
	}
}

// Since when a copy goes alone, and who was Primary first, is on disk with the
// generation.
func TestWhenTheTwoPartedIsWrittenDown(t *testing.T) {
	b := mirrored(t, equal())
	b.eng.wall = func() int64 { return 1700000002 }
	b.linkDown()
	b.submit(block.Write, 0, 4096)
	b.ledger()
	if s := b.super[0]; s.Since != 1700000002 || !s.Elder || s.Gen.Bitmap != 77 {
		t.Fatalf("%+v", s)
	}
	late := newBox(t, equal()) // was not connected in this tenure
	late.promote()
	late.submit(block.Write, 0, 4096)
	late.ledger()
	if s := late.super[0]; s.Since != 0 || s.Elder || s.Gen.Bitmap != 77 {
		t.Fatalf("%+v", s)
	}
}

// undone is a victim that has been brought in line with the other side, was taken
// out of the set and stands alone.
func undone(t *testing.T) *box {
	t.Helper()
	s := equal()
	s.super = Super{Gen: genid.Set{Current: 500, History: [genid.HistoryLen]genid.ID{81, 77}}, Disk: state.UpToDate}
	s.record = wire.Record{Token: 9, InSync: []string{"beta"}}
	return newBox(t, s)
}

// What is being put back is worth nothing, meets nobody, and is what it was when the
// marks of what was put back are on disk.
func TestAnUndoneCopyIsWhatItWas(t *testing.T) {
	b := undone(t)
	b.hold[WritePages] = true
	b.do(Event{Kind: Undo})
	if f := b.expect(Reply); f.Err != nil || f.Of != Undo {
		t.Fatal(f.Err)
	}
	if s := b.super[0]; s.Disk != state.Inconsistent || !s.FullSync || s.Gen.Current != genid.JustCreated {
		t.Fatalf("being put back, the copy is %+v", s)
	}
	b.linkUp()
	b.none(PeerSend)
	b.do(Event{Kind: Promote, Tenure: 20, Force: true})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("a copy that is being put back was promoted")
	}
	marks := dirty.New(b.size)
	marks.Set(5*4096, 4096)
	was := Super{Gen: genid.Set{Current: 80, Bitmap: 77}, Disk: state.UpToDate, LastPrimary: true, Since: 1700000000, Elder: true}
	b.do(Event{Kind: UndoDone, Copies: []Super{was}, Marks: []*dirty.Bitmap{marks}})
	b.none(Reply)
	if s := b.super[0]; s.Gen.Current != genid.JustCreated {
		t.Fatalf("the marks are not on disk, and the copy is %+v", s)
	}
	page := b.expect(WritePages)
	b.do(b.durable(page))
	if f := b.expect(Reply); f.Err != nil || f.Of != UndoDone {
		t.Fatal(f.Err)
	}
	if s := b.super[0]; s.Gen != was.Gen || s.Disk != state.Outdated || s.FullSync || !s.LastPrimary || s.Since != was.Since || !s.Elder {
		t.Fatalf("put back, the copy is %+v", s)
	}
	if v := b.eng.vols[0]; v.bits.Count() != 1 || !v.bits.Any(5*4096, 1) {
		t.Fatal("what was put back is not marked")
	}
	b.message(wire.Hello)
}

// An undo that fails leaves a copy that is replaced as a whole.
func TestAnUndoThatFails(t *testing.T) {
	b := undone(t)
	b.do(Event{Kind: Undo})
	b.expect(Reply)
	b.do(Event{Kind: UndoDone, Err: block.ErrIO})
	if f := b.expect(Reply); !errors.Is(f.Err, block.ErrIO) {
		t.Fatal(f.Err)
	}
	b.do(Event{Kind: UndoDone, Copies: []Super{{}}})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("nothing is being put back, and that is done")
	}
	if s := b.super[0]; s.Disk != state.Inconsistent || !s.FullSync || s.Gen.Current != genid.JustCreated {
		t.Fatalf("half put back, the copy is %+v", s)
	}
}

// A copy that the ledger counts, that is in use, or that is connected is not put back.
func TestWhatIsNotUndone(t *testing.T) {
	for name, prepare := range map[string]func() *box{
		"in sync":   func() *box { return newBox(t, equal()) },
		"Primary":   func() *box { b := newBox(t, equal()); b.promote(); return b },
		"connected": func() *box { b := undone(t); b.linkUp(); return b },
	} {
		b := prepare()
		was := b.super[0].Gen
		b.do(Event{Kind: Undo})
		if f := b.expect(Reply); !errors.Is(f.Err, ErrBadState) || b.super[0].Gen != was {
			t.Errorf("%s: %v, %+v", name, f.Err, b.super[0])
		}
	}
}

// After an undo no policy decides.
func TestAnUndoneCopySaysSo(t *testing.T) {
	b := undone(t)
	b.do(Event{Kind: Configure, Settings: Settings{PutBack: true}})
	if !b.eng.hello().Split.PutBack {
		t.Fatal("it does not")
	}
}

// A copy that the ledger did not count is promoted by force. It hears of the force
// before its promotion. The other one, which was Primary and has written nothing without
// it, may have what this one has lost: it is not overwritten unless somebody says so.
func TestForcedCopyIsApartFromTheOneBefore(t *testing.T) {
	b := newBox(t, equal())
	b.record = wire.Record{Token: 2, Tenure: 2, Primary: "beta", InSync: []string{"beta"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.record = wire.Record{Token: 3, Tenure: 2, InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.record = wire.Record{Token: 4, Tenure: 4, Primary: "alpha", InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.do(Event{Kind: Promote, Tenure: 4, Force: true})
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	if g := b.super[0]; g.Gen.Bitmap != 77 || !g.Gen.Forced() {
		t.Fatalf("promoted by force, the copy is %+v", g)
	}
	before := func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 77}.Words(); tells(h, nil) }
	b.greet(before)
	if m := b.message(wire.Refuse); m.Status != wire.SplitBrain {
		t.Fatalf("%s: %s", m.Status, m.Data)
	}
	b.linkDown()
	b.greet(both(before, givesUp))
	b.ledger()
	b.message(wire.SyncStart)
}

// Promoted by force though it counts, a copy begins no generation: its peer comes back
// without being asked for anything.
func TestForcedThoughItCounts(t *testing.T) {
	b := newBox(t, equal())
	b.record = wire.Record{Token: 2, Tenure: 2, Primary: "alpha", InSync: []string{"alpha", "beta"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.do(Event{Kind: Promote, Tenure: 2, Force: true})
	if f := b.expect(Reply); f.Err != nil || b.super[0].Gen != (genid.Set{Current: 77}) {
		t.Fatalf("%v, %+v", f.Err, b.super[0])
	}
	b.greet(nil)
	if got := b.eng.View().Replication; got != state.Established {
		t.Fatal(got)
	}
}

// The side that is given up has lost the disk of one volume: that is sent as a whole.
func TestTheVictimHasANewDisk(t *testing.T) {
	two := equal()
	two.volumes = 2
	two.super.Gen = genid.Set{Current: 80, Bitmap: 77}
	b := newBox(t, two)
	blank := func(h *wire.HelloBody) {
		h.Volumes[0].Gen, h.Volumes[0].Disk, h.Volumes[0].FullSync = genid.New().Words(), state.Inconsistent, true
		h.Volumes[1].Gen = genid.Set{Current: 81, Bitmap: 77}.Words()
		tells(h, nil)
	}
	mine := b.eng.hello()
	m := b.peerHello(wire.Hello, both(blank, givesUp))
	theirs, err := wire.ParseHello(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	mine.Record, theirs.Record = wire.Record{Token: 3, InSync: []string{"alpha"}}, wire.Record{Token: 3, InSync: []string{"alpha"}}
	if d := judge(mine, theirs); d.action != actSource || !slices.Equal(d.full, []bool{true, false}) {
		t.Fatalf("%+v", d)
	}
	if d := judge(theirs, mine); d.action != actTarget || !slices.Equal(d.full, []bool{true, false}) {
		t.Fatalf("seen from there: %+v", d)
	}
	mine.Split.GivesUp, theirs.Split.GivesUp = true, false
	if d := judge(mine, theirs); d.refuse == nil {
		t.Fatalf("a side with data is given up for a blank disk: %+v", d)
	}
}
