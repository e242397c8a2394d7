package engine

import (
	"fmt"
)

// A token counts in the ledger that it was counted by. The superblocks keep the
// highest one, and may outlive that ledger: every voter's was lost, or this node's
// was given up. What they bring refuses a lower token like any other (R12), but it
// deposes nobody, and it is dropped where it is known to be of another ledger.

// highest is the highest tenure that this copy has seen, in whichever life.
func (e *Engine) highest() uint64 { return max(e.seen, e.before) }

// settleBefore drops what the superblocks brought when both hellos tell one record,
// of a lower tenure, and this node's ledger had applied all that it had committed when
// the node began: so that tenure was not of it. And both nodes that have data go by
// this one, so nobody else can go by the other.
func (e *Engine) settleBefore() {
	mine, theirs := &e.session.mine.Record, &e.session.theirs.Record
	if e.current && mine.Token != 0 && mine.Tenure < e.before && sameRecord(mine, theirs) {
		e.forgetBefore("%s goes by the same ledger, under token %d", e.peer, mine.Token)
	}
}

// forcedNow reports whether an operator forces a promotion that the present ledger
// has committed: it is his word that nobody goes by the ledger of before.
func (e *Engine) forcedNow(tenure uint64, force bool) bool {
	return force && e.record.Primary == e.self && e.record.Tenure == tenure
}

func (e *Engine) forgetBefore(why string, args ...any) {
	e.note(fmt.Sprintf("token %d, which the superblock has, is of another ledger: %s", e.before, fmt.Sprintf(why, args...)))
	e.before = 0
	for _, v := range e.vols {
		v.touch()
	}
}
