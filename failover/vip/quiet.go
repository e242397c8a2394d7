package vip

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// A kernel answers on any Ethernet for all its IPv4 addresses, and asks for others in the name
// of any of them, with the MAC of the device at hand. So the parent of a virtual MAC
// is made to speak for its own addresses only: what LVS wants of a real server.
const (
	ignoreForeign   = 1 // arp_ignore: answer for addresses of the device only
	announceForeign = 2 // arp_announce: ask with an address of the device only
)

// level is what a parent's settings were before; -1: as they are, not changed here.
type level struct{ ignore, announce int }

// note is what a device that was made here says of itself, in its alias: who has it,
// and what to put back when it goes. So it is known after a crash, to the deadman too.
type note struct {
	owner string
	was   level
}

const (
	noteWord = "hapair"
	ownerMax = 200 // of the 255 bytes of an alias
)

// String is the alias: hapair OWNER arp_ignore=N arp_announce=N.
func (n note) String() string {
	owner := n.owner
	if owner == "" {
		owner = "-"
	}
	text := noteWord + " " + owner
	if n.was.ignore >= 0 {
		text += " arp_ignore=" + strconv.Itoa(n.was.ignore)
	}
	if n.was.announce >= 0 {
		text += " arp_announce=" + strconv.Itoa(n.was.announce)
	}
	return text
}

// parseNote reads an alias; false for one that was not written here. A value that
// could not have been changed is taken for none.
func parseNote(alias string) (n note, ours bool) {
	words := strings.Split(alias, " ")
	if len(words) < 2 || words[0] != noteWord || words[1] == "" {
		return note{was: level{-1, -1}}, false
	}
	n = note{owner: words[1], was: level{-1, -1}}
	if n.owner == "-" {
		n.owner = ""
	}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		v, err := strconv.Atoi(value)
		switch {
		case err != nil || v < 0:
		case key == "arp_ignore" && v < ignoreForeign:
			n.was.ignore = v
		case key == "arp_announce" && v < announceForeign:
			n.was.announce = v
		}
	}
	return n, true
}

const settingsDir = "/proc/sys/net"

// setting names a setting of a device; family is ipv4 or ipv6.
func setting(family, dev, key string) string {
	return filepath.Join(settingsDir, family, "conf", dev, key)
}

func get(family, dev, key string) (int, error) {
	b, err := os.ReadFile(setting(family, dev, key))
	if err != nil {
		return 0, fmt.Errorf("read the setting: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read the setting %s: %w", setting(family, dev, key), err)
	}
	return v, nil
}

// put writes a setting that is otherwise.
func put(family, dev, key string, value int) error {
	if have, err := get(family, dev, key); err != nil || have == value {
		return err
	}
	if err := os.WriteFile(setting(family, dev, key), []byte(strconv.Itoa(value)), 0); err != nil {
		return fmt.Errorf("write the setting: %w", err)
	}
	return nil
}

// quietPossible refuses settings that would have the parent answer for the virtual
// MAC's addresses all the same. The kernel takes the greater of all's and the device's.
func (p *port) quietPossible() error {
	for _, dev := range []string{"all", p.site.Dev} {
		v, err := get("ipv4", dev, "arp_ignore")
		if err != nil {
			return err
		}
		if v >= 3 && v <= 7 {
			return &ForeignError{p.site.Dev, fmt.Sprintf("would answer for a virtual MAC's address with its own MAC: net.ipv4.conf.%s.arp_ignore is %d, want 0, 1, 2 or 8", dev, v)}
		}
	}
	return nil
}

// noise reads what the parent's settings were before any device was made on it here.
func (p *port) noise() (was level, err error) {
	was = p.was
	others, err := p.made(p.base)
	if err != nil {
		return was, err
	}
	for _, l := range others {
		n, _ := parseNote(l.Attrs().Alias) // made has read it
		was = level{max(was.ignore, n.was.ignore), max(was.announce, n.was.announce)}
	}
	err = p.within(func() error {
		ignore, err := get("ipv4", p.site.Dev, "arp_ignore")
		if err != nil {
			return err
		}
		announce, err := get("ipv4", p.site.Dev, "arp_announce")
		if ignore < ignoreForeign {
			was.ignore = ignore
		}
		if err == nil && announce < announceForeign {
			was.announce = announce
		}
		return err
	})
	return was, err
}

// still makes the parent silent about the addresses of the device, and the device
// about all others: no link-local address, no routers heeded, no IPv4 address of
// another device. It takes packets that the parent would be the way back for.
func (p *port) still(l netlink.Link) error {
	if n, ours := parseNote(l.Attrs().Alias); ours {
		p.was = level{max(p.was.ignore, n.was.ignore), max(p.was.announce, n.was.announce)}
	}
	return p.within(func() error {
		if err := p.hush(p.site.Dev); err != nil {
			return err
		}
		for _, s := range []struct {
			key   string
			value int
		}{{"arp_ignore", ignoreForeign}, {"arp_announce", announceForeign}, {"arp_filter", 0}, {"rp_filter", 2}, {"promote_secondaries", 1}} {
			if err := put("ipv4", p.dev, s.key, s.value); err != nil {
				return err
			}
		}
		return p.still6()
	})
}

// still6 does nothing where the kernel has no IPv6.
func (p *port) still6() error {
	keys := []string{"addr_gen_mode", "accept_ra", "autoconf"}
	values := map[string]int{"addr_gen_mode": 1} // none
	if p.site.Prefix.Addr().Is6() {
		keys = append(keys, "disable_ipv6")
	}
	for _, key := range keys {
		if err := put("ipv6", p.dev, key, values[key]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// hush has a parent speak for its own addresses only.
func (p *port) hush(base string) error {
	for _, s := range []struct {
		key  string
		want int
	}{{"arp_ignore", ignoreForeign}, {"arp_announce", announceForeign}} {
		v, err := get("ipv4", base, s.key)
		if err == nil && v < s.want {
			err = put("ipv4", base, s.key, s.want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// loud puts the parent's settings back when no device is left on it: those that
// were changed, and that nobody has changed since.
func (p *port) loud(l netlink.Link) error {
	n, _ := parseNote(l.Attrs().Alias)
	if others, err := p.made(l.Attrs().ParentIndex); err != nil || len(others) > 0 {
		return err
	}
	base, err := p.nl.LinkByIndex(l.Attrs().ParentIndex)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil // it is gone, with its settings
	}
	if err != nil {
		return fmt.Errorf("look up the parent of %s: %w", l.Attrs().Name, err)
	}
	err = p.within(func() error {
		return errors.Join(putBack(base.Attrs().Name, "arp_ignore", ignoreForeign, n.was.ignore),
			putBack(base.Attrs().Name, "arp_announce", announceForeign, n.was.announce))
	})
	if others, lerr := p.made(l.Attrs().ParentIndex); lerr != nil || len(others) > 0 { // made by another process meanwhile
		return errors.Join(err, lerr, p.within(func() error { return p.hush(base.Attrs().Name) }))
	}
	return err
}

func putBack(dev, key string, changed, was int) error {
	v, err := get("ipv4", dev, key)
	if err != nil || v != changed || was < 0 {
		return err
	}
	return put("ipv4", dev, key, was)
}
