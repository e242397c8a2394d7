package fault

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"hapair/mirror/block"
)

// errorWords are the errors a rule in text can name.
var errorWords = map[string]error{"io": block.ErrIO, "nospace": block.ErrNoSpace, "notsupp": block.ErrNotSupp}

var opWords = map[string]block.Op{
	"read": block.Read, "write": block.Write, "flush": block.Flush, "discard": block.Discard, "write-zeroes": block.WriteZeroes,
}

// ParseRule reads a rule such as
//
//	write,flush offset=4096 length=8192 skip=2 count=1 err=io torn
//
// Words, in any order: operations with commas between them, offset=, length=,
// skip=, count= (decimal), delay= (as 20ms), err= (io, nospace, notsupp), hang,
// late, torn.
func ParseRule(text string) (Rule, error) {
	var u Rule
	for word := range strings.FieldsSeq(text) {
		if err := u.parse(word); err != nil {
			return Rule{}, fmt.Errorf("fault rule %q: %q: %w", text, word, err)
		}
	}
	if (u.Late || u.Torn) && u.Err == nil {
		return Rule{}, fmt.Errorf("fault rule %q: late and torn need err=", text)
	}
	if u.Err == nil && u.Delay == 0 && !u.Hang {
		return Rule{}, fmt.Errorf("fault rule %q does nothing: want err=, delay= or hang", text)
	}
	return u, nil
}

func (u *Rule) parse(word string) (err error) {
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "hang":
		u.Hang = true
	case "late":
		u.Late = true
	case "torn":
		u.Torn = true
	case "offset":
		u.Offset, err = number(value)
	case "length":
		u.Length, err = number(value)
	case "skip":
		u.Skip, err = small(value)
	case "count":
		u.Count, err = small(value)
	case "delay":
		if u.Delay, err = time.ParseDuration(value); err == nil && u.Delay <= 0 {
			err = fmt.Errorf("a delay is longer than 0")
		}
	case "err":
		var ok bool
		if u.Err, ok = errorWords[value]; !ok {
			err = fmt.Errorf("want io, nospace or notsupp")
		}
	default:
		return u.parseOps(word)
	}
	return err
}

func (u *Rule) parseOps(word string) error {
	for name := range strings.SplitSeq(word, ",") {
		op, ok := opWords[name]
		if !ok {
			return fmt.Errorf("%q is neither an operation nor a known word", name)
		}
		u.Ops = append(u.Ops, op)
	}
	return nil
}

func number(value string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err == nil && n < 0 || n > 1<<60 {
		return 0, fmt.Errorf("want a number from 0 to 2^60")
	}
	return n, err
}

func small(value string) (int, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	return int(n), err
}
