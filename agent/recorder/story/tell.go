package story

import (
	"cmp"
	"slices"
)

// Gap is a run of entries of one life that nobody here has, though there are
// later ones.
type Gap struct {
	Node     string
	Life     uint64
	From, To uint64 // numbers, both included
	// Before is the stamp of the first entry behind the gap.
	Before Stamp
}

// compare is the one order: by stamp; what has the same one happened apart, and
// is told by node. Within one life it is the order of the numbers.
func compare(a, b *Entry) int {
	return cmp.Or(cmp.Compare(a.Stamp, b.Stamp), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Life, b.Life), cmp.Compare(a.Seq, b.Seq))
}

// Tell puts entries of any nodes, in any order, some of them twice, into the one
// order. Whoever has the same entries tells the same.
func Tell(entries []Entry) []Entry {
	out := slices.Clone(entries)
	slices.SortFunc(out, func(a, b Entry) int { return compare(&a, &b) })
	return slices.CompactFunc(out, func(a, b Entry) bool { return a.Node == b.Node && a.Life == b.Life && a.Seq == b.Seq })
}

// Gaps finds what is missing in a story that Tell returned, in its order. What a
// node did before the first of its entries is not missing: it is no longer kept,
// or was never heard.
func Gaps(told []Entry) (gaps []Gap) {
	last := map[life]uint64{}
	begun := map[string]bool{}
	for i := range told {
		e := &told[i]
		key := life{e.Node, e.Life}
		was, known := last[key]
		if !known && !begun[e.Node] {
			was = e.Seq - 1
		}
		if e.Seq > was+1 {
			gaps = append(gaps, Gap{Node: e.Node, Life: e.Life, From: was + 1, To: e.Seq - 1, Before: e.Stamp})
		}
		last[key], begun[e.Node] = e.Seq, true
	}
	return gaps
}
