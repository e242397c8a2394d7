package engine

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/aftersplit"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// parted is when and how a copy went on without its peer's; it counts while the
// generation has a base.
type parted struct {
	since int64 // seconds since 1970, by this node's clock; 0: not known
	elder bool  // this node was Primary then, and had been while both were in line
}

// splitBrain is what this node does about one.
type splitBrain struct {
	givesUp bool // somebody said that what only this copy has may be overwritten
}

var errGivesUp = errors.New("this node gives up what only it has, and greets anew to say so")

// part notes that a copy goes on without its peer's from now on. When a clock says
// is for people; who was Primary first decides where a policy asks for it.
func (e *Engine) part(v *volume) {
	if v.gen.Bitmap != 0 {
		return // it did so before
	}
	v.parted = parted{elder: e.role == state.Primary && e.alike}
	if e.wall != nil {
		v.parted.since = e.wall()
	}
}

// sinceParted is what is written down and told: nothing while the two are in line.
func (v *volume) sinceParted() parted {
	if v.gen.Bitmap == 0 {
		return parted{}
	}
	return v.parted
}

// splitHello is what the hello says of a split brain.
func (e *Engine) splitHello() *wire.Split {
	p := e.set.AfterSplit
	if !p.Deciding() {
		p = aftersplit.Default
	}
	s := &wire.Split{GivesUp: e.split.givesUp, PutBack: e.set.PutBack, Policies: p}
	for _, v := range e.vols {
		x := v.sinceParted()
		s.Volumes = append(s.Volumes, wire.SplitVolume{Since: x.since, Elder: x.elder})
	}
	return s
}

// discardData has the next handshake that finds a split brain end with a resync
// from the peer. Nothing is overwritten, or written down, before that is agreed on.
func (e *Engine) discardData() {
	if err := e.MayDiscardData(); err != nil {
		e.reply(DiscardData, err)
		return
	}
	e.split.givesUp = true
	e.dropSession(errGivesUp)
	e.reply(DiscardData, nil)
}

// MayDiscardData says why this copy cannot be given up now. While it can, nothing is
// at the disks: what they hold may be kept aside.
func (e *Engine) MayDiscardData() error {
	switch s := &e.session; {
	case e.role == state.Primary:
		return fmt.Errorf("this node is Primary: %w", ErrBadState)
	case s.phase == preparing || s.phase == agreed:
		return fmt.Errorf("the copies have met and are %s: %w", s.repl, ErrBadState)
	case e.peerOps > 0 || e.fillAtDisk() || e.ledger.inFlight:
		return fmt.Errorf("requests of the last session are under way yet; try again: %w", ErrBadState)
	}
	return nil
}

// keptSide says which copy is kept where exactly one node gives up: actSource this
// one, actTarget the peer's, actNone where nobody, or both, do.
func keptSide(mine, theirs *wire.HelloBody) action {
	switch a, b := mine.Split, theirs.Split; {
	case a == nil || b == nil || a.GivesUp == b.GivesUp:
		return actNone
	case a.GivesUp:
		return actTarget
	}
	return actSource
}

// judgeGivenUp is judgeGenerations where one side gives up what only it has. What
// the two differ in is what both bitmaps say together. ok is false where that
// word changes nothing: the copies did not part, or the one to keep is empty.
func judgeGivenUp(mine, theirs *wire.HelloBody, kept action) (d decision, ok bool) {
	victim, blank := theirs.Node, genid.SourceFullNew
	if kept == actTarget {
		victim, blank = mine.Node, genid.TargetFullNew
	}
	d = decision{action: kept, full: make([]bool, len(mine.Volumes)), why: victim + " gives up what only it has"}
	for i := range mine.Volumes {
		switch genid.Compare(genid.FromWords(mine.Volumes[i].Gen), genid.FromWords(theirs.Volumes[i].Gen)) {
		case genid.Equal:
			continue
		case blank: // the side that is given up has nothing of this volume
			d.full[i] = true
			continue
		case genid.SplitBrain, genid.SourceBitmap, genid.TargetBitmap:
		case genid.SplitBrainFull, genid.SourceFull, genid.TargetFull:
			d.full[i] = true
		default: // a new copy, or one of other data, is not what anybody meant
			return decision{}, false
		}
		ok = true
	}
	return d, ok
}

// judgeSplit asks the policies about a refusal that is one for a split brain. It
// stays one: the victim gives up before the next handshake, as an operator has
// it do.
func judgeSplit(d decision, mine, theirs *wire.HelloBody) decision {
	if d.refuse == nil || d.refuse.Status != wire.SplitBrain || mine.Split == nil || theirs.Split == nil {
		return d
	}
	d.victim, d.why = policyVictim(mine, theirs)
	if d.victim != "" {
		d.why += "; so " + d.victim + " gives up what only it has"
	}
	if d.why != "" {
		d.refuse.Text += "; " + d.why
	}
	return d
}

// policyVictim is who gives up by the policies, "" for nobody, and why; no reason
// where both leave it to an operator.
func policyVictim(mine, theirs *wire.HelloBody) (victim, why string) {
	p, other := aftersplit.Policies(mine.Split.Policies), aftersplit.Policies(theirs.Split.Policies)
	switch {
	case !p.Deciding() && !other.Deciding():
		return "", ""
	case p != other:
		first, second := mine.Node, theirs.Node
		if first > second {
			first, second, p, other = second, first, other, p
		}
		return "", fmt.Sprintf("no policy decides, for the two nodes have different ones: %s has %q, %s has %q", first, p, second, other)
	case mine.Split.PutBack || theirs.Split.PutBack:
		return "", "no policy decides, for what one node gave up was put back: the choice is an operator's until hactl split-brain drop"
	}
	o := aftersplit.Decide(p, splitSide(mine, theirs), splitSide(theirs, mine))
	if o.Victim != "" && sameRecord(&mine.Record, &theirs.Record) && len(mine.Record.InSync) == 1 && mine.Record.InSync[0] == o.Victim {
		return "", o.Why + ", but the ledger calls only its copy current"
	}
	return o.Victim, o.Why
}

func sameRecord(a, b *wire.Record) bool {
	return a.Token == b.Token && a.Tenure == b.Tenure && a.Primary == b.Primary && slices.Equal(a.InSync, b.InSync)
}

// splitSide is what the policies ask about one side. How much it changed is known
// where its bitmap goes back to where the two parted.
func splitSide(h, other *wire.HelloBody) aftersplit.Side {
	s := aftersplit.Side{Node: h.Node, Primary: h.Role == state.Primary, Changes: int64(dirtyBlocks(h))}
	for i := range h.Volumes {
		s.Elder = s.Elder || h.Split.Volumes[i].Elder
		switch genid.Compare(genid.FromWords(h.Volumes[i].Gen), genid.FromWords(other.Volumes[i].Gen)) {
		case genid.Equal, genid.SplitBrain, genid.SourceBitmap, genid.TargetBitmap:
			if !h.Volumes[i].FullSync {
				continue
			}
		default: // counts are about something else
		}
		s.Changes = aftersplit.Unknown
	}
	return s
}

// Rival is what the peer told of itself when the two found that both had gone
// on without the other.
type Rival struct {
	Role       state.Role
	Token      uint64 // of the record it goes by
	DirtyBytes int64  // what it has that this copy may lack
	Told       bool   // it says since when, and may be given up by what the bitmaps say
	Volumes    []RivalVolume
	Victim     string // who gives up by the policies, "" for nobody
	Because    string // what the policies say, "" where they leave it to an operator
}

// Counted reports whether the dirty blocks of both sides are all since they parted.
func (r *Rival) Counted() bool {
	for i := range r.Volumes {
		if !r.Volumes[i].Counted {
			return false
		}
	}
	return true
}

// RivalVolume is one volume of both, in their order.
type RivalVolume struct {
	Number     uint16
	DirtyBytes int64
	Since      int64 // seconds since 1970, by the peer's clock; 0: not known
	Elder      bool
	Current    uint64 // generations of the peer
	Base       uint64
	Counted    bool // the dirty blocks are those since the two parted, on both sides
}

// noteRival keeps what the peer told in a handshake that proved a split brain:
// an operator has to choose between the two.
func (e *Engine) noteRival(d *decision) {
	h := e.session.theirs
	if d.refuse.Status != wire.SplitBrain && (e.role != state.Primary || h.Role != state.Primary) {
		return
	}
	r := &Rival{Role: h.Role, Token: h.Record.Token, DirtyBytes: int64(dirtyBlocks(h)) * dirty.BlockBytes, Told: h.Split != nil, Victim: d.victim, Because: d.why}
	for i := range min(len(h.Volumes), len(e.vols)) {
		x := &h.Volumes[i]
		v := RivalVolume{Number: x.Number, DirtyBytes: int64(x.DirtyBlocks) * dirty.BlockBytes, Current: x.Gen[0], Base: x.Gen[1]}
		if h.Split != nil {
			v.Since, v.Elder = h.Split.Volumes[i].Since, h.Split.Volumes[i].Elder
		}
		v.Counted = genid.Compare(genid.FromWords(e.session.mine.Volumes[i].Gen), genid.FromWords(x.Gen)) != genid.SplitBrainFull
		r.Volumes = append(r.Volumes, v)
	}
	e.rival = r
}
