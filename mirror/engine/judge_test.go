package engine

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hapair/mirror/aftersplit"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// drawHello draws what a node may say of itself. Records of the same token are
// the same record, as in any ledger.
func drawHello(t *rapid.T, node string, records []wire.Record, volumes int) *wire.HelloBody {
	h := &wire.HelloBody{Resource: "r", Node: node, Record: rapid.SampledFrom(records).Draw(t, "record"),
		Role:    rapid.SampledFrom([]state.Role{state.Secondary, state.Secondary, state.Primary}).Draw(t, "role"),
		Suspect: rapid.Bool().Draw(t, "suspect"), LastPrimary: rapid.Bool().Draw(t, "last")}
	h.Split = rapid.SampledFrom([]*wire.Split{nil, {}, {}, {GivesUp: true}, {PutBack: true}}).Draw(t, "split")
	if h.Split != nil {
		policies := []aftersplit.Policies{aftersplit.Default, {"discard-least-changes", "discard-secondary", "call-pri-lost-after-sb"}}
		h.Split = &wire.Split{GivesUp: h.Split.GivesUp, PutBack: h.Split.PutBack, Policies: rapid.SampledFrom(policies).Draw(t, "policies"), Volumes: make([]wire.SplitVolume, volumes)}
		h.Split.Volumes[0].Elder = rapid.Bool().Draw(t, "elder")
	}
	disks := []state.Disk{state.UpToDate, state.UpToDate, state.UpToDate, state.Inconsistent, state.Outdated, state.Consistent, state.Failed}
	id := rapid.SampledFrom([]genid.ID{0, 4, 10, 11, 12, 13})
	sizes := rapid.SampledFrom([]int64{volumeBytes, volumeBytes, volumeBytes, volumeBytes, 2 * volumeBytes})
	for i := range volumes {
		g := genid.Set{Current: rapid.SampledFrom([]genid.ID{4, 10, 11, 12, 13}).Draw(t, "current"), Bitmap: id.Draw(t, "bitmap")}
		g.History[0] = id.Draw(t, "history")
		disk := rapid.SampledFrom(disks).Draw(t, "disk")
		h.Volumes = append(h.Volumes, wire.HelloVolume{Number: uint16(i), SizeBytes: sizes.Draw(t, "size"), LogicalBlockBytes: 512, Disk: disk, Gen: g.Words(), DirtyBlocks: uint64(rapid.IntRange(0, 1).Draw(t, "dirty")),
			AssumeClean: rapid.Bool().Draw(t, "assume"), FullSync: !disk.CanServe() && rapid.Bool().Draw(t, "full")})
	}
	return h
}

// Both nodes judge alone, from the same two hellos, and must reach the same
// verdict; no verdict overwrites a Primary or copies from what is not current.
func TestJudgeIsSymmetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []wire.Record
		sets := [][]string{nil, {"alpha"}, {"beta"}, {"alpha", "beta"}}
		for token := range uint64(3) {
			records = append(records, wire.Record{Token: token + 1, InSync: rapid.SampledFrom(sets).Draw(t, "in sync")})
		}
		volumes := rapid.IntRange(1, 2).Draw(t, "volumes")
		a, b := drawHello(t, "alpha", records, volumes), drawHello(t, "beta", records, volumes)
		here, there := judge(a, b), judge(b, a)
		switch {
		case (here.refuse == nil) != (there.refuse == nil):
			t.Fatalf("one refuses, the other does not:\n%+v\n%+v", here, there)
		case here.refuse != nil && here.refuse.Status != there.refuse.Status:
			t.Fatalf("refused for different reasons:\n%v\n%v", here.refuse, there.refuse)
		case here.victim != there.victim || here.victim != "" && here.refuse == nil:
			t.Fatalf("%q gives up here, %q there:\n%+v\n%+v", here.victim, there.victim, here, there)
		case here.refuse != nil:
			return
		case here.action != there.action.inverse() || !slices.Equal(here.full, there.full):
			t.Fatalf("%s (full %v) here and %s (full %v) there", here.action, here.full, there.action, there.full)
		}
		source, target := a, b
		switch here.action {
		case actNothing:
			if !countsAsCurrent(a) || !countsAsCurrent(b) {
				t.Fatalf("nothing to resync, and a copy is not current: %+v", here)
			}
			return
		case actWait:
			return
		case actFit:
			for i := range a.Volumes {
				for h, d := range map[*wire.HelloBody]decision{a: here, b: there} {
					if d.sizes[i] > 0 && (h.Role == state.Primary || d.sizes[i] >= h.Volumes[i].SizeBytes || !h.Volumes[i].AssumeClean && genid.ID(h.Volumes[i].Gen[0]) != genid.JustCreated) {
						t.Fatalf("volume %d of %s is cut to %d bytes: %+v", i, h.Node, d.sizes[i], h)
					}
				}
			}
			return
		case actTarget:
			source, target = b, a
		}
		if target.Role == state.Primary {
			t.Fatalf("a Primary would be overwritten: %+v", here)
		}
		if !countsAsCurrent(source) {
			t.Fatalf("the source %s is not current: %+v", source.Node, here)
		}
		if rec := newerRecord(a.Record, b.Record); !slices.Contains(rec.InSync, source.Node) {
			t.Fatalf("the source %s is not in the in-sync set: %+v", source.Node, here)
		}
		for i := range a.Volumes {
			v := genid.Compare(genid.FromWords(source.Volumes[i].Gen), genid.FromWords(target.Volumes[i].Gen))
			if (v == genid.SplitBrain || v == genid.SplitBrainFull || v == genid.TargetBitmap || v == genid.TargetFull) && (target.Split == nil || !target.Split.GivesUp) {
				t.Fatalf("%s is overwritten, is no ancestor by its generations (%s), and did not give up: %+v", target.Node, v, here)
			}
			if v == genid.SplitBrainFull && !here.full[i] {
				t.Fatalf("the bitmaps are of no use, and only what they say is sent: %+v", here)
			}
		}
		if !slices.Equal(wanted(here.full, target), here.full) {
			t.Fatalf("%s wants all of it, and gets what the bitmaps say: %+v", target.Node, here)
		}
	})
}

// handshake is two hellos, and what comes of them.
type handshake struct {
	name         string
	alpha, beta  func(*wire.HelloBody)
	status       wire.Status
	lasting      bool
	action       action
	full         bool
	wantSentence string
}

// says is the hello of a sound copy, but for what change makes of it.
func says(node string, change func(*wire.HelloBody)) *wire.HelloBody {
	h := &wire.HelloBody{Resource: "r", Node: node, Role: state.Secondary, Record: wire.Record{Token: 7, InSync: []string{"alpha", "beta"}},
		Volumes: []wire.HelloVolume{{SizeBytes: volumeBytes, LogicalBlockBytes: 512, Disk: state.UpToDate, Gen: genid.Set{Current: 77}.Words()}}}
	if change != nil {
		change(h)
	}
	return h
}

func gen(current, bitmap genid.ID) func(*wire.HelloBody) {
	return func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: current, Bitmap: bitmap}.Words() }
}

func (c *handshake) judge(t *testing.T) {
	t.Helper()
	d := judge(says("alpha", c.alpha), says("beta", c.beta))
	got := d.why
	if d.refuse != nil {
		got = d.refuse.Text
		if d.refuse.Status != c.status || d.refuse.lasting() != c.lasting {
			t.Errorf("%s: status %v, lasting %v", c.name, d.refuse.Status, d.refuse.lasting())
		}
	} else if c.status != wire.OK || d.action != c.action || slices.Contains(d.full, true) != c.full {
		t.Errorf("%s: %s, full %v", c.name, d.action, d.full)
	}
	if got != c.wantSentence {
		t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.wantSentence)
	}
}

// What an operator reads when two nodes do not agree.
func TestRefusalsOfAHandshake(t *testing.T) {
	for _, c := range []handshake{
		{name: "equal", action: actNothing, wantSentence: "both are in the in-sync set and nothing is dirty"},
		{name: "number of volumes", beta: func(h *wire.HelloBody) { h.Volumes = append(h.Volumes, h.Volumes[0]) }, status: wire.BadGeometry, lasting: true,
			wantSentence: "alpha has 1 volumes, beta has 2"},
		{name: "disk", beta: func(h *wire.HelloBody) { h.Volumes[0].Disk = state.Failed }, status: wire.BadState,
			wantSentence: "volume 0 is UpToDate on alpha and Failed on beta"},
		{name: "disk of the Primary", alpha: func(h *wire.HelloBody) { h.Role, h.Volumes[0].Disk = state.Primary, state.Failed }, action: actWait,
			wantSentence: "volume 0 is Failed on alpha and UpToDate on beta, and the Primary has to hand over"},
		{name: "two Primaries", alpha: func(h *wire.HelloBody) { h.Role = state.Primary }, beta: func(h *wire.HelloBody) { h.Role = state.Primary },
			status: wire.BadState, wantSentence: "both nodes say they are Primary (token 0 here, 0 there)"},
		{name: "split brain", alpha: gen(80, 77), beta: gen(81, 77), status: wire.SplitBrain, lasting: true,
			wantSentence: "volume 0: both copies were written without the other; hactl explain on both nodes tells what each has, and how to keep it"},
		{name: "unrelated", beta: gen(90, 0), status: wire.Unrelated, lasting: true, wantSentence: "volume 0: the copies have no common ancestor; was a disk swapped?"},
		{name: "neither current", alpha: func(h *wire.HelloBody) { h.Volumes[0].Disk = state.Inconsistent }, beta: func(h *wire.HelloBody) { h.Volumes[0].Disk = state.Inconsistent },
			status: wire.BadState, wantSentence: "neither copy is UpToDate; force one of them Primary"},
		{name: "Primary is behind", alpha: func(h *wire.HelloBody) { h.Role = state.Primary; h.Volumes[0].Disk = state.Inconsistent },
			status: wire.BadState, wantSentence: "the Primary would have to become the target of a resync (our copy is not UpToDate)"},
		{name: "ahead", alpha: gen(80, 77), action: actSource, wantSentence: "the peer's data are an ancestor of ours"},
		{name: "new disk", beta: gen(genid.JustCreated, 0), action: actSource, full: true, wantSentence: "the peer's copy is new"},
		{name: "suspect", alpha: func(h *wire.HelloBody) { h.Suspect = true; h.Volumes[0].DirtyBlocks = 1; h.LastPrimary = true },
			action: actTarget, wantSentence: "the copy that did not crash is the source"},
		{name: "both suspect", alpha: func(h *wire.HelloBody) { h.Suspect = true; h.Volumes[0].DirtyBlocks = 1 },
			beta: func(h *wire.HelloBody) { h.Suspect = true; h.LastPrimary = true }, action: actTarget, wantSentence: "the last Primary is the source"},
		{name: "Primary beats all", alpha: func(h *wire.HelloBody) { h.Role = state.Primary; h.Suspect = true; h.Volumes[0].DirtyBlocks = 1 },
			action: actSource, wantSentence: "the Primary is the source"},
		{name: "names", alpha: func(h *wire.HelloBody) { h.Volumes[0].DirtyBlocks = 1 }, action: actSource, wantSentence: "both copies are alike; the lower name is the source"},
		{name: "nothing declared", alpha: func(h *wire.HelloBody) { h.Record = wire.Record{} }, beta: func(h *wire.HelloBody) { h.Record = wire.Record{} },
			action: actWait, wantSentence: "the ledger does not say yet which copy counts"},
		{name: "full", beta: func(h *wire.HelloBody) { h.Volumes[0].Disk = state.Inconsistent; h.Volumes[0].FullSync = true }, action: actSource, full: true,
			wantSentence: "the peer's copy is not UpToDate"},
	} {
		c.judge(t)
	}
}
