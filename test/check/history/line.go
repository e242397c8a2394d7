package history

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A sector holds its value and its place, over and over.
func putSector(s []byte, place int, v Value) {
	for w := 0; w < len(s); w += 16 {
		binary.LittleEndian.PutUint64(s[w:], uint64(v))
		binary.LittleEndian.PutUint64(s[w+8:], ^uint64(place))
	}
}

func getSector(s []byte, place int) (Value, error) {
	v, want := binary.LittleEndian.Uint64(s), ^uint64(place)
	if v == 0 {
		want = 0
	}
	for w := 0; w < len(s); w += 16 {
		if binary.LittleEndian.Uint64(s[w:]) != v || binary.LittleEndian.Uint64(s[w+8:]) != want {
			return 0, fmt.Errorf("sector %d is torn inside or misplaced: % x", place, s[:32])
		}
	}
	return Value(v), nil
}

// WriteCall tells of a request before it is made. Numbers are a client's own,
// and never used twice by it.
func WriteCall(w io.Writer, client int, number uint64, o *Op) error {
	_, err := fmt.Fprintf(w, "call %d %d %d %d %d %d %d\n", client, number, o.Kind, o.Block, o.Blocks, o.Value, o.Call)
	return err
}

// WriteReturn tells of its answer. A client that was answered with an error, or
// dies, tells nothing.
func WriteReturn(w io.Writer, client int, number uint64, o *Op) error {
	line := fmt.Sprintf("return %d %d %d", client, number, o.Return)
	for _, c := range o.Found {
		line += " " + c.String()
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// String is one value, or the values of all sectors when they differ.
func (c Contents) String() string {
	if c == uniform(c[0]) {
		return strconv.FormatUint(uint64(c[0]), 10)
	}
	out := make([]string, len(c))
	for i, v := range c {
		out[i] = strconv.FormatUint(uint64(v), 10)
	}
	return strings.Join(out, ",")
}

func uniform(v Value) (c Contents) {
	for i := range c {
		c[i] = v
	}
	return c
}

// Line takes one line of a client on a node.
func (h *History) Line(node, text string) error {
	kind, rest, _ := strings.Cut(text, " ")
	var err error
	switch kind {
	case "call":
		err = h.called(node, rest)
	case "return":
		err = h.returned(node, rest)
	default:
		err = fmt.Errorf("%q is neither call nor return", kind)
	}
	if err != nil {
		return fmt.Errorf("history: line %q of %s: %w", text, node, err)
	}
	return nil
}

func (h *History) called(node, text string) error {
	var client int
	var number uint64
	o := &Op{}
	if _, err := fmt.Sscan(text, &client, &number, &o.Kind, &o.Block, &o.Blocks, &o.Value, (*int64)(&o.Call)); err != nil {
		return err
	}
	if o.Kind < Read || o.Kind > Flush || o.Block < 0 || o.Blocks < 0 || o.Kind == Write && o.Value == 0 {
		return fmt.Errorf("no request of a client")
	}
	o.Who = fmt.Sprintf("%s/%d", node, client)
	if h.open == nil {
		h.open = map[string]*Op{}
	}
	key := fmt.Sprintf("%s/%d", o.Who, number)
	if h.open[key] != nil {
		return fmt.Errorf("called twice")
	}
	h.open[key] = o
	h.ops = append(h.ops, o)
	return nil
}

func (h *History) returned(node, text string) error {
	words := strings.Fields(text)
	if len(words) < 3 {
		return fmt.Errorf("%d words", len(words))
	}
	key := node + "/" + words[0] + "/" + words[1]
	o := h.open[key]
	if o == nil {
		return fmt.Errorf("was not called")
	}
	at, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		return err
	}
	for _, w := range words[3:] {
		c, err := parseContents(w)
		if err != nil {
			return err
		}
		o.Found = append(o.Found, c)
	}
	if o.Kind == Read && len(o.Found) != o.Blocks || o.Kind != Read && len(o.Found) > 0 {
		return fmt.Errorf("a %s of %d blocks found %d", o.Kind, o.Blocks, len(o.Found))
	}
	o.Return, o.Answered = time.Duration(at), true
	delete(h.open, key)
	return nil
}

func parseContents(text string) (Contents, error) {
	words := strings.Split(text, ",")
	if len(words) != 1 && len(words) != BlockSectors {
		return Contents{}, fmt.Errorf("%q: %d sectors", text, len(words))
	}
	var c Contents
	for i := range c {
		v, err := strconv.ParseUint(words[i%len(words)], 10, 64)
		if err != nil {
			return Contents{}, err
		}
		c[i] = Value(v)
	}
	return c, nil
}
