package engine

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

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
	disks := []state.Disk{state.UpToDate, state.UpToDate, state.UpToDate, state.Inconsistent, state.Outdated, state.Consistent, state.Failed}
	id := rapid.SampledFrom([]genid.ID{0, 4, 10, 11, 12, 13})
	sizes := rapid.SampledFrom([]int64{volumeBytes, volumeBytes, volumeBytes, volumeBytes, 2 * volumeBytes})
	for i := range volumes {
		g := genid.Set{Current: rapid.SampledFrom([]genid.ID{4, 10, 11, 12, 13}).Draw(t, "current"), Bitmap: id.Draw(t, "bitmap")}
		g.History[0] = id.Draw(t, "history")
		disk := rapid.SampledFrom(disks).Draw(t, "disk")
		h.Volumes = append(h.Volumes, wire.HelloVolume{Number: uint16(i), SizeBytes: sizes.Draw(t, "size"), LogicalBlockBytes: 512, Disk: disk, Gen: packGen(g), DirtyBlocks: uint64(rapid.IntRange(0, 1).Draw(t, "dirty")),
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
		if !slices.Equal(wanted(here.full, target), here.full) {
			t.Fatalf("%s wants all of it, and gets what the bitmaps say: %+v", target.Node, here)
		}
	})
}

// What an operator reads when two nodes do not agree.
func TestRefusalsOfAHandshake(t *testing.T) {
	hello := func(node string, change func(*wire.HelloBody)) *wire.HelloBody {
		h := &wire.HelloBody{Resource: "r", Node: node, Role: state.Secondary, Record: wire.Record{Token: 7, InSync: []string{"alpha", "beta"}},
			Volumes: []wire.HelloVolume{{SizeBytes: volumeBytes, LogicalBlockBytes: 512, Disk: state.UpToDate, Gen: packGen(genid.Set{Current: 77})}}}
		if change != nil {
			change(h)
		}
		return h
	}
	gen := func(current, bitmap genid.ID) func(*wire.HelloBody) {
		return func(h *wire.HelloBody) { h.Volumes[0].Gen = packGen(genid.Set{Current: current, Bitmap: bitmap}) }
	}
	declared := func(size int64) func(*wire.HelloBody) {
		return func(h *wire.HelloBody) {
			h.Volumes[0].SizeBytes, h.Volumes[0].AssumeClean, h.Record = size, true, wire.Record{}
		}
	}
	for _, c := range []struct {
		name         string
		alpha, beta  func(*wire.HelloBody)
		status       wire.Status
		lasting      bool
		action       action
		full         bool
		wantSentence string
	}{
		{name: "equal", action: actNothing, wantSentence: "both are in the in-sync set and nothing is dirty"},
		{name: "size", beta: func(h *wire.HelloBody) { h.Volumes[0].SizeBytes = 4096 }, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 67108864 bytes on alpha and 4096 bytes on beta; a copy is fitted to the other only while it is new: if alpha may lose what it has, run hactl create-metadata there"},
		{name: "new disk, too small", beta: func(h *wire.HelloBody) { gen(genid.JustCreated, 0)(h); h.Volumes[0].SizeBytes = 4096 }, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 67108864 bytes on alpha and 4096 bytes on beta, whose copy is new: it needs a disk that offers as much"},
		{name: "new disk, larger", beta: func(h *wire.HelloBody) { gen(genid.JustCreated, 0)(h); h.Volumes[0].SizeBytes *= 2 }, action: actFit,
			wantSentence: "volume 0 of beta holds nothing yet and has 134217728 bytes, alpha has 67108864"},
		{name: "a new disk that is Primary by force is not new", beta: func(h *wire.HelloBody) {
			gen(genid.JustCreated, 0)(h)
			h.Role, h.Volumes[0].SizeBytes = state.Primary, 2*volumeBytes
		}, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 134217728 bytes on beta and 67108864 bytes on alpha; a copy is fitted to the other only while it is new: if beta may lose what it has, run hactl create-metadata there"},
		{name: "new pair declared equal", alpha: declared(volumeBytes), beta: declared(2 * volumeBytes), action: actFit,
			wantSentence: "volume 0 of beta holds nothing yet and has 134217728 bytes, alpha has 67108864"},
		{name: "declared equal once, and Primary since", alpha: declared(volumeBytes), beta: func(h *wire.HelloBody) { declared(2 * volumeBytes)(h); h.LastPrimary = true },
			status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 134217728 bytes on beta and 67108864 bytes on alpha; a copy is fitted to the other only while it is new: if beta may lose what it has, run hactl create-metadata there"},
		{name: "blocks", beta: func(h *wire.HelloBody) { h.Volumes[0].LogicalBlockBytes = 4096 }, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has logical blocks of 512 bytes on alpha and of 4096 bytes on beta; both disks need the same"},
		{name: "number of volumes", beta: func(h *wire.HelloBody) { h.Volumes = append(h.Volumes, h.Volumes[0]) }, status: wire.BadGeometry, lasting: true,
			wantSentence: "alpha has 1 volumes, beta has 2"},
		{name: "disk", beta: func(h *wire.HelloBody) { h.Volumes[0].Disk = state.Failed }, status: wire.BadState,
			wantSentence: "volume 0 is UpToDate on alpha and Failed on beta"},
		{name: "two Primaries", alpha: func(h *wire.HelloBody) { h.Role = state.Primary }, beta: func(h *wire.HelloBody) { h.Role = state.Primary },
			status: wire.BadState, wantSentence: "both nodes say they are Primary (tenure 0 here, 0 there)"},
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
		d := judge(hello("alpha", c.alpha), hello("beta", c.beta))
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
}
