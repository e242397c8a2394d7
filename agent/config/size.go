package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
	{"P", 1 << 50}, {"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1},
}

// ParseSize reads "100GiB", "1.5 TiB", "10GB" or a plain number of bytes. A
// single letter means the binary unit, as lvcreate has it.
func ParseSize(s string) (Size, error) {
	number, unit := strings.TrimSpace(s), 1.0
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	if i, err := strconv.ParseInt(number, 10, 64); err == nil && unit == 1 && i >= 0 {
		return Size(i), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*unit >= math.MaxInt64 {
		return 0, fmt.Errorf("parse size %q: want a number with an optional unit such as GiB", s)
	}
	return Size(f * unit), nil
}

// ParseRate reads a size, with or without "/s" behind it.
func ParseRate(s string) (Rate, error) {
	b, err := ParseSize(strings.TrimSuffix(strings.TrimSpace(s), "/s"))
	return Rate(b), err
}

// String returns the rate as it stands in the file.
func (r Rate) String() string { return Size(r).String() + "/s" }

// String returns the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits[:5] {
		if unit := int64(u.bytes); s != 0 && int64(s)%unit == 0 {
			return strconv.FormatInt(int64(s)/unit, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
