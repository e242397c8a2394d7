package meta

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

func TestCreateOpen(t *testing.T) {
	_, snap := reopened(t, external(t))
	s := snap.Super
	if s.Cluster != "c1" || s.Resource != "r0" || s.Volume != 3 || s.Node != "alpha" || s.Peer != "beta" ||
		s.DataBytes != testData || s.ActivitySlots != testSlots || s.Generations != genid.New() ||
		s.Disk != state.Inconsistent || s.Flags != Clean || s.Sequence != 2 {
		t.Fatalf("%+v", s)
	}
	if snap.Bitmap.SizeBytes() != testData || snap.Bitmap.Count() != 0 || len(snap.HotExtents) != 0 || len(snap.Repairs) != 0 {
		t.Fatalf("%d dirty, hot %v, repairs %v", snap.Bitmap.Count(), snap.HotExtents, snap.Repairs)
	}
}

func TestEverythingComesBack(t *testing.T) {
	d := external(t)
	done := 0
	for round := range 20 { // the ring has 3 blocks, the superblocks are 2
		st, snap := reopened(t, d)
		super := snap.Super
		super.Token++
		super.Flags = WasPrimary | CrashedPrimary
		super.Disk = state.UpToDate
		super.Generations = super.Generations.Mint(genid.ID(100 + round))
		st.WriteSuper(super, must(t, &done))
		snap.Bitmap.Set(int64(round)*(16<<20), 4096)
		for i, ok := snap.Bitmap.NextStale(0); ok; i, ok = snap.Bitmap.NextStale(i) {
			version := snap.Bitmap.Version(i)
			st.WriteBitmapPages(i, snap.Bitmap.Page(i, nil), must(t, &done))
			snap.Bitmap.Saved(i, version)
		}
		snap.Log.Acquire(int64(round)*actlog.ExtentBytes, 4096)
		tx, ok, _ := snap.Log.Prepare(0, func(uint32) bool { return true })
		if !ok {
			t.Fatal("no transaction")
		}
		st.WriteActivity(tx, must(t, &done))
		_, after := reopened(t, d)
		super.Sequence++
		if after.Super != super || after.Bitmap.Count() != int64(round+1) || len(after.HotExtents) != round+1 || len(after.Repairs) != 0 {
			t.Fatalf("round %d: %+v, %d dirty, hot %v, repairs %v", round, after.Super, after.Bitmap.Count(), after.HotExtents, after.Repairs)
		}
	}
	if done != 60 {
		t.Fatalf("%d writes were answered", done)
	}
}

func TestInternal(t *testing.T) {
	for _, size := range []int64{1 << 20, 64<<20 + 512, 130<<20 - 4096} {
		p := params()
		p.Placement, p.DataBytes, p.ActivitySlots = Internal, 0, 0
		d := created(t, p, size)
		_, snap, err := Open(d, Internal, Identity{})
		if err != nil {
			t.Fatal(err)
		}
		if n := snap.Super.DataBytes; n+Needed(n) > size || n+Needed(n)+3*BlockBytes <= size || n%BlockBytes != 0 {
			t.Errorf("of %d bytes %d are left for data, and %d for metadata", size, n, Needed(n))
		}
		if len(bytes.Trim(d.data[:snap.Super.DataBytes], "\x00")) != 0 {
			t.Errorf("Create on %d bytes touched the data", size)
		}
		if _, _, err := Open(d, External, Identity{}); !errors.Is(err, ErrNone) {
			t.Errorf("opened as external: %v", err)
		}
	}
}

func TestCreateRefusals(t *testing.T) {
	need := NeededFor(testData, testSlots)
	for name, c := range map[string]struct {
		size int64
		bend func(*CreateParams)
		want error
	}{
		"external, one byte short": {need - 1, func(*CreateParams) {}, ErrTooSmall},
		"internal, no room":        {12 * BlockBytes, func(p *CreateParams) { p.Placement, p.DataBytes, p.ActivitySlots = Internal, 0, 0 }, ErrTooSmall},
		"internal, too much data":  {1 << 20, func(p *CreateParams) { p.Placement, p.DataBytes = Internal, 1<<20-8192 }, ErrTooSmall},
		"long name":                {need, func(p *CreateParams) { p.Resource = strings.Repeat("x", 64) }, nil},
		"no placement":             {need, func(p *CreateParams) { p.Placement = 0 }, nil},
		"odd size":                 {need, func(p *CreateParams) { p.DataBytes-- }, nil},
		"many slots":               {1 << 30, func(p *CreateParams) { p.ActivitySlots = 1 << 17 }, nil},
		"born Primary":             {need, func(p *CreateParams) { p.Flags = WasPrimary }, nil},
	} {
		p := params()
		c.bend(&p)
		d := newMemDisk(c.size)
		_, err := Create(d, p)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestExistingMetadataNeedsForce(t *testing.T) {
	d := external(t)
	p := params()
	p.Resource = "other"
	if _, err := Create(d, p); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "r0/3 of node alpha") {
		t.Fatalf("over a volume: %v", err)
	}
	clear(d.data[:BlockBytes])
	d.data[BlockBytes+100] ^= 1
	if _, err := Create(d, p); !errors.Is(err, ErrExists) {
		t.Fatalf("over a damaged superblock: %v", err)
	}
	p.Force = true
	if _, err := Create(d, p); err != nil {
		t.Fatal(err)
	}
	if s, _, err := Inspect(d, External); err != nil || s.Resource != "other" {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := Wipe(d, External); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Inspect(d, External); !errors.Is(err, ErrNone) {
		t.Fatalf("after Wipe: %v", err)
	}
	copy(d.data[60:], "\x83\x74\x02\x6d")
	p.Force = false
	if _, err := Create(d, p); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "DRBD 9") {
		t.Fatalf("over DRBD: %v", err)
	}
}

// A failure at any write of Create leaves no metadata, or that which was there.
func TestCreateFailsAnywhere(t *testing.T) {
	for n := 0; ; n++ {
		d := external(t)
		p := params()
		p.Device, p.Resource, p.Force = UUID{}, "new", true
		d.failAfter(n)
		_, err := Create(d, p)
		if err == nil {
			if n < 8 {
				t.Fatalf("Create took only %d writes", n)
			}
			return
		}
		if !errors.Is(err, errTest) {
			t.Fatalf("write %d: %v", n, err)
		}
		d.fail = nil
		_, snap, err := Open(d, External, Identity{})
		switch {
		case err != nil && !errors.Is(err, ErrNone):
			t.Fatalf("write %d: %v", n, err)
		case err == nil && len(snap.Repairs) > 1: // one superblock may be missing
			t.Fatalf("write %d: opened with %v", n, snap.Repairs)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	other := func(d *memDisk, at int64) { // an intact block of another device
		var h header
		b := d.data[at : at+BlockBytes]
		copy(h.device[:], "another device!!")
		h.kind = blockType(b[10])
		seal(b, h, int(b[12])|int(b[13])<<8)
	}
	version := func(d *memDisk, at int64) {
		d.data[at+8] = 2
		sum := checksum(d.data[at : at+BlockBytes])
		copy(d.data[at+40:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	}
	l := func(d *memDisk) Layout { _, l, _ := Inspect(d, External); return l }
	for name, c := range map[string]struct {
		bend func(d *memDisk)
		id   Identity
		want error
		text string
	}{
		"zeroes":            {func(d *memDisk) { clear(d.data) }, Identity{}, ErrNone, "only zeroes"},
		"text":              {func(d *memDisk) { copy(d.data, "hello"); copy(d.data[BlockBytes:], "hello") }, Identity{}, ErrNone, "68 65 6c 6c 6f"},
		"both torn":         {func(d *memDisk) { d.data[99]++; d.data[BlockBytes+99]++ }, Identity{}, ErrTorn, "checksum"},
		"newer version":     {func(d *memDisk) { version(d, 0) }, Identity{}, ErrVersion, "version 2, this program reads 1"},
		"two devices":       {func(d *memDisk) { other(d, 0) }, Identity{}, nil, ""},
		"other cluster":     {func(*memDisk) {}, Identity{Cluster: "c2"}, ErrForeign, `"c1", want "c2"`},
		"other resource":    {func(*memDisk) {}, Identity{Resource: "r1", Volume: 3}, ErrForeign, "r0/3, want r1/3"},
		"other volume":      {func(*memDisk) {}, Identity{Resource: "r0", Volume: 1}, ErrForeign, "r0/3, want r0/1"},
		"other node":        {func(*memDisk) {}, Identity{Node: "beta"}, ErrForeign, `"alpha", want "beta"`},
		"other device":      {func(*memDisk) {}, Identity{Device: UUID{9}}, ErrForeign, "want 09"},
		"cut short":         {func(d *memDisk) { d.data = d.data[:len(d.data)-BlockBytes] }, Identity{}, ErrTooSmall, ""},
		"foreign bitmap":    {func(d *memDisk) { other(d, l(d).BitmapOffset) }, Identity{}, ErrForeign, "bitmap page 0"},
		"foreign log":       {func(d *memDisk) { other(d, l(d).RingOffset) }, Identity{}, ErrForeign, "activity log block 0"},
		"superblocks moved": {func(d *memDisk) { copy(d.data, d.data[BlockBytes:2*BlockBytes]) }, Identity{}, ErrMalformed, ""},
	} {
		d := external(t)
		c.bend(d)
		_, _, err := Open(d, External, c.id)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.want, c.text)
		}
	}
}

func TestGrownDeviceIsRefused(t *testing.T) {
	p := params()
	p.Placement, p.DataBytes = Internal, 0
	d := created(t, p, 16<<20)
	copyOfEnd := slices.Clone(d.data[len(d.data)-2*BlockBytes:])
	d.data = append(d.data, make([]byte, 1<<20)...)
	if _, _, err := Open(d, Internal, Identity{}); !errors.Is(err, ErrNone) {
		t.Errorf("grown: %v", err)
	}
	copy(d.data[len(d.data)-2*BlockBytes:], copyOfEnd)
	if _, _, err := Open(d, Internal, Identity{}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("with moved superblocks: %v", err)
	}
}

func TestCopiesDeclaredEqualHaveOneGeneration(t *testing.T) {
	of := func(resource, node string, flags Flags) genid.ID {
		p := params()
		p.Resource, p.Node, p.Flags = resource, node, flags
		s, _, err := Inspect(created(t, p, NeededFor(testData, testSlots)), External)
		if err != nil {
			t.Fatal(err)
		}
		return s.Generations.Current
	}
	if a, b := of("r0", "alpha", AssumeClean), of("r0", "beta", AssumeClean); a != b || a == genid.JustCreated {
		t.Errorf("declared equal, but generations are %s and %s", a, b)
	}
	if a, b := of("r0", "alpha", AssumeClean), of("r1", "alpha", AssumeClean); a == b {
		t.Errorf("two resources share generation %s", a)
	}
	if g := of("r0", "alpha", 0); g != genid.JustCreated {
		t.Errorf("not declared equal, but generation is %s", g)
	}
}
