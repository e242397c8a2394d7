package check

import "fmt"

// Copy is what is on the stable storage of one node: contents by sector, and
// whether a restart would find the sector marked for resync.
type Copy struct {
	Name   string
	At     func(sector int) Version
	Marked func(sector int) bool
	// Whole: the copy is known to differ as a whole.
	Whole bool
}

// Marks is the mark law: where two copies differ, one of them knows it durably.
// Sectors is what to look at.
func Marks(sectors []int, a, b *Copy) error {
	if a.Whole || b.Whole {
		return nil
	}
	for _, s := range sectors {
		if a.At(s) != b.At(s) && !a.Marked(s) && !b.Marked(s) {
			return fmt.Errorf("mark law: sector %d is %d at %s and %d at %s, and neither has marked it", s, a.At(s), a.Name, b.At(s), b.Name)
		}
	}
	return nil
}

// InSet is rule R11: a copy that the ledger counts as in sync is not a half-made
// one, whatever happens to its node.
func InSet(node string, inconsistent bool) error {
	if inconsistent {
		return fmt.Errorf("mark law: %s is in the in-sync set, and its superblock says Inconsistent", node)
	}
	return nil
}

// Equal is what two copies that call themselves equal must be.
func Equal(sectors []int, a, b *Copy) error {
	for _, s := range sectors {
		if a.At(s) != b.At(s) {
			return fmt.Errorf("copies differ: sector %d is %d at %s and %d at %s", s, a.At(s), a.Name, b.At(s), b.Name)
		}
	}
	return nil
}
