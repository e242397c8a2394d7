package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The slots of a form: what may stand there.
const (
	slotNode  = "NODE"  // a machine
	slotData  = "DATA"  // a data node
	slotWhose = "WHOSE" // a data node, any or none
	slotPath  = "PATH"
	slotCount = "COUNT"
)

// actions are the forms of actions: halab's words for machines, hactl's for what
// an operator asks.
var actions = []struct {
	verb  Verb
	words string
}{
	{PowerOff, "power off NODE"}, {PowerOn, "power on NODE"},
	{Kill, "kill NODE"}, {Start, "start NODE"}, {Stop, "stop NODE"},
	{Pause, "pause NODE"}, {Resume, "resume NODE"},
	{Cut, "link cut NODE PATH"}, {Heal, "link heal NODE PATH"},
	{DiskFails, "disk DATA fail"}, {DiskHangs, "disk DATA hang"}, {DiskIsSlow, "disk DATA slow"}, {DiskWorks, "disk DATA heal"},
	{Promote, "promote DATA"}, {Demote, "demote DATA"}, {Switchover, "switchover to DATA"},
	{Connect, "connect DATA"}, {Disconnect, "disconnect DATA"}, {Attach, "attach DATA"}, {Invalidate, "invalidate DATA"},
	{PauseSync, "pause-sync DATA"}, {ResumeSync, "resume-sync DATA"}, {Verify, "verify DATA"}, {Repair, "verify DATA repair"},
}

// conditions are the forms of conditions.
var conditions = []struct {
	what  What
	words string
}{
	{Primary, "primary WHOSE"}, {InSync, "in-sync"}, {Alone, "alone DATA"}, {Target, "target DATA"}, {Frozen, "frozen DATA"},
	{Forwarding, "forwarding DATA"}, {DiskGone, "disk-gone DATA"}, {Verified, "verified DATA"}, {Answers, "answers COUNT"},
}

// countMax bounds the answers that are waited for.
const countMax = 100_000

// slots are the values that words filled in.
type slots struct {
	node, path string
	count      int
}

// match reports whether words have the form, and what stands in its slots.
func match(form string, words []string) (s slots, ok bool) {
	want := strings.Fields(form)
	if len(want) != len(words) {
		return s, false
	}
	for i, w := range want {
		if !s.take(w, words[i]) {
			return s, false
		}
	}
	return s, true
}

func (s *slots) take(slot, word string) bool {
	switch slot {
	case slotNode, slotData, slotWhose:
		s.node = word
	case slotPath:
		s.path = word
	case slotCount:
		n, err := strconv.Atoi(word)
		s.count = n
		return err == nil && n > 0 && n <= countMax && word == strconv.Itoa(n)
	default:
		return slot == word
	}
	return slices.Contains(choices[slot], word)
}

// choices are what may stand in a slot.
var choices = map[string][]string{
	slotNode: {Alpha, Beta, Gamma}, slotData: {Alpha, Beta}, slotWhose: {Alpha, Beta, Any, None}, slotPath: {Crossover, LAN},
}

// fill writes a form with values in its slots.
func fill(form, node, path string, count int) string {
	words := strings.Fields(form)
	for i, w := range words {
		switch w {
		case slotNode, slotData, slotWhose:
			words[i] = node
		case slotPath:
			words[i] = path
		case slotCount:
			words[i] = strconv.Itoa(count)
		}
	}
	return strings.Join(words, " ")
}

// spell writes a form for a reader: slots as the words that may stand there.
func spell(form string) string {
	words := strings.Fields(form)
	for i, w := range words {
		if c := choices[w]; c != nil {
			words[i] = strings.Join(c, "|")
		} else if w == slotCount {
			words[i] = fmt.Sprintf("1..%d", countMax)
		}
	}
	return strings.Join(words, " ")
}

// forms lists forms for an error: those that begin with the same word as what was
// found, else the first words of all.
func forms(all []string, found []string) string {
	var same, first []string
	for _, f := range all {
		w := strings.Fields(f)[0]
		if len(found) > 0 && w == found[0] {
			same = append(same, spell(f))
		}
		if !slices.Contains(first, w) {
			first = append(first, w)
		}
	}
	if len(same) > 0 {
		return strings.Join(same, ", or ")
	}
	return "one that begins with " + strings.Join(first, ", ")
}

func parseAction(words []string) (Action, error) {
	var all []string
	for _, f := range actions {
		if s, ok := match(f.words, words); ok && s.node == Gamma && s.path == Crossover {
			return Action{}, fmt.Errorf("%s has no crossover cable; want %s", Gamma, fill(f.words, Gamma, LAN, 0))
		} else if ok {
			return Action{Verb: f.verb, Node: s.node, Path: s.path}, nil
		}
		all = append(all, f.words)
	}
	return Action{}, fmt.Errorf("%q is no action; want %s", strings.Join(words, " "), forms(all, words))
}

func parseCondition(words []string) (Condition, error) {
	var all []string
	for _, f := range conditions {
		if s, ok := match(f.words, words); ok {
			return Condition{What: f.what, Node: s.node, Count: s.count}, nil
		}
		all = append(all, f.words)
	}
	return Condition{}, fmt.Errorf("%q is no condition; want %s", strings.Join(words, " "), forms(all, words))
}

// Peer is the data node that is not this one.
func Peer(node string) string {
	if node == Alpha {
		return Beta
	}
	return Alpha
}
