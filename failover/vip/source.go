package vip

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Where the address is the source of what leaves, that is said in a routing table of its
// own, which two rules lead to; the node's own routes are not touched.
const (
	sourceTables   = 0x48410000 // the last 16 bits come from the address
	sourceTableMax = sourceTables | 0xffff
	sourceProtocol = 0x48  // of rules and routes: they are from here
	sourceLast     = 32765 // priority of the rules, just before that of the main table
	sourceMetric6  = 1024
)

// ErrNoPolicyRouting is returned where the kernel has no rules for routing tables.
var ErrNoPolicyRouting = errors.New("this kernel has no routing rules (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES), which source_for needs")

func (s Site) table() int {
	sum := sha256.Sum256([]byte(s.Prefix.Addr().String()))
	return sourceTables | int(sum[0])<<8 | int(sum[1])
}

// rules lead to the table what goes where SourceFor says, but for what the main table
// has a better route for. Those of IPv4 match only what has no source as yet, so that
// nothing else is affected; of IPv6 a rule cannot say that.
func (s Site) rules() (specific, own *netlink.Rule) {
	make := func() *netlink.Rule {
		r := netlink.NewRule()
		r.Family, r.Protocol, r.Priority = family(s.Prefix.Addr()), sourceProtocol, sourceLast
		if s.SourceFor.Bits() > 0 { // before those for all the rest
			r.Dst, r.Priority = ipNet(s.SourceFor), sourceLast-1
		}
		if s.Prefix.Addr().Is4() {
			r.Src = ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 32))
		}
		return r
	}
	specific, own = make(), make()
	specific.Table, specific.SuppressPrefixlen = unix.RT_TABLE_MAIN, s.SourceFor.Bits()
	own.Table = s.table()
	return specific, own
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// lead has the address be the source, and says whether it had to do anything. The
// address has to be on the node.
func (p *port) lead() (did bool, err error) {
	if !p.site.SourceFor.IsValid() {
		return false, nil
	}
	if did, err = p.leadRoute(); err != nil {
		return did, err
	}
	have, err := p.ourRules(family(p.site.Prefix.Addr()))
	if err != nil {
		return did, err
	}
	specific, own := p.site.rules()
	if hasRule(have, specific) && hasRule(have, own) {
		return did, nil
	}
	if err := p.dropRules(); err != nil { // their order counts
		return did, err
	}
	for _, r := range []*netlink.Rule{specific, own} {
		err := p.nl.RuleAdd(r)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			return true, ErrNoPolicyRouting
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return true, fmt.Errorf("add the rule for the source %s: %w", p.site.Prefix.Addr(), err)
		}
	}
	return true, nil
}

// leadRoute has the table say what the main table says, with the address as source;
// nothing where that says nothing.
func (p *port) leadRoute() (did bool, err error) {
	way, err := p.wayTo(p.site.SourceFor)
	if err != nil {
		return false, err
	}
	have, err := p.routes(p.site.table())
	if err != nil {
		return false, err
	}
	if way == nil {
		return len(have) > 0, p.dropRoutes(have)
	}
	want := sourceRoute(way, p.site)
	if len(have) == 1 && sameRoute(&have[0], want) {
		return false, nil
	}
	for i := range have {
		if have[i].Protocol != sourceProtocol {
			return false, &ForeignError{fmt.Sprintf("routing table %d", p.site.table()), "has a route that was not made by hapair: " + have[i].String()}
		}
	}
	if err := p.nl.RouteReplace(want); err != nil {
		return false, fmt.Errorf("add the route with the source %s: %w", p.site.Prefix.Addr(), err)
	}
	return true, nil
}

// sourceRoute is the way with the address as its source.
func sourceRoute(way *netlink.Route, s Site) *netlink.Route {
	r := &netlink.Route{Table: s.table(), Protocol: sourceProtocol, Family: family(s.Prefix.Addr()), Dst: ipNet(s.SourceFor), Src: s.Prefix.Addr().AsSlice(),
		LinkIndex: way.LinkIndex, Gw: way.Gw, Via: way.Via, Scope: way.Scope, Flags: way.Flags & int(netlink.FLAG_ONLINK), MTU: way.MTU, AdvMSS: way.AdvMSS}
	for _, hop := range way.MultiPath {
		h := *hop
		h.Flags &= int(netlink.FLAG_ONLINK)
		r.MultiPath = append(r.MultiPath, &h)
	}
	if s.Prefix.Addr().Is6() {
		r.Priority = sourceMetric6
	}
	return r
}

func sameRoute(a, b *netlink.Route) bool {
	if a.LinkIndex != b.LinkIndex || !a.Gw.Equal(b.Gw) || !a.Src.Equal(b.Src) || a.Protocol != b.Protocol || a.MTU != b.MTU || len(a.MultiPath) != len(b.MultiPath) {
		return false
	}
	for i := range a.MultiPath {
		x, y := a.MultiPath[i], b.MultiPath[i]
		if x.LinkIndex != y.LinkIndex || !x.Gw.Equal(y.Gw) || x.Hops != y.Hops {
			return false
		}
	}
	return true
}

// wayTo is the route of the main table for all of a network; nil when there is none.
func (p *port) wayTo(to netip.Prefix) (best *netlink.Route, err error) {
	all, err := p.routes(unix.RT_TABLE_MAIN)
	if err != nil {
		return nil, err
	}
	const dead = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN
	bits := -1
	for i := range all {
		r := &all[i]
		n := covers(r, to)
		if n < 0 || r.Type != unix.RTN_UNICAST || r.Flags&dead != 0 {
			continue
		}
		if n > bits || n == bits && r.Priority < best.Priority {
			best, bits = r, n
		}
	}
	return best, nil
}

// covers is the prefix length of a route that is for all of a network, and -1 of others.
func covers(r *netlink.Route, to netip.Prefix) int {
	if r.Dst == nil {
		return 0
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	if dst := netip.PrefixFrom(a.Unmap(), bits); !ok || bits > to.Bits() || !dst.Contains(to.Addr()) {
		return -1
	}
	return bits
}

// concerned reports whether a change of a route may change the way.
func (s Site) concerned(r *netlink.Route) bool {
	return r.Table == s.table() || r.Table == unix.RT_TABLE_MAIN && covers(r, s.SourceFor) >= 0
}

func (p *port) routes(table int) (all []netlink.Route, err error) {
	fam := family(p.site.Prefix.Addr())
	for try := 0; ; try++ {
		all, err = p.nl.RouteListFiltered(fam, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 10 {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) { // no such table
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return all, nil
}

// ourRules lists the rules that were made here.
func (p *port) ourRules(fam int) (ours []netlink.Rule, err error) {
	var all []netlink.Rule
	for try := 0; ; try++ {
		if all, err = p.nl.RuleList(fam); !errors.Is(err, netlink.ErrDumpInterrupted) || try == 10 {
			break
		}
	}
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // there can be none
	}
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	for _, r := range all {
		if r.Protocol == sourceProtocol {
			r.Family = fam
			ours = append(ours, r)
		}
	}
	return ours, nil
}

func hasRule(all []netlink.Rule, want *netlink.Rule) bool {
	for i := range all {
		if sameRule(&all[i], want) {
			return true
		}
	}
	return false
}

func sameRule(a, b *netlink.Rule) bool {
	network := func(n *net.IPNet) string {
		if n == nil {
			return ""
		}
		return n.String()
	}
	return a.Table == b.Table && a.Priority == b.Priority && a.SuppressPrefixlen == b.SuppressPrefixlen && network(a.Dst) == network(b.Dst)
}

// unlead undoes lead, also where the device is gone.
func (s Site) unlead() error {
	if !s.SourceFor.IsValid() {
		return nil
	}
	p, err := bare()
	if err != nil {
		return err
	}
	defer p.close()
	p.site = s
	return p.unlead()
}

func (p *port) unlead() error {
	if !p.site.SourceFor.IsValid() {
		return nil
	}
	have, err := p.routes(p.site.table())
	return errors.Join(p.dropRules(), err, p.dropRoutes(have))
}

func (p *port) dropRules() error {
	have, err := p.ourRules(family(p.site.Prefix.Addr()))
	if err != nil {
		return err
	}
	specific, own := p.site.rules()
	for i := range have {
		if r := &have[i]; sameRule(r, specific) || sameRule(r, own) {
			err = errors.Join(err, p.dropRule(r))
		}
	}
	return err
}

func (p *port) dropRule(r *netlink.Rule) error {
	if err := p.nl.RuleDel(r); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the rule for a source: %w", err)
	}
	return nil
}

// dropRoutes deletes what was made here.
func (p *port) dropRoutes(all []netlink.Route) (err error) {
	for i := range all {
		if all[i].Protocol != sourceProtocol {
			continue
		}
		if derr := p.nl.RouteDel(&all[i]); derr != nil && !errors.Is(derr, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("delete the route for a source: %w", derr))
		}
	}
	return err
}

// sweepSources deletes all rules and routes that were made here.
func (p *port) sweepSources() (swept []string, err error) {
	for _, any := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		p.site.Prefix = any
		rules, rerr := p.ourRules(family(any.Addr()))
		err = errors.Join(err, rerr)
		for i := range rules {
			r := &rules[i]
			err = errors.Join(err, p.dropRule(r))
			if r.Table < sourceTables || r.Table > sourceTableMax {
				continue
			}
			routes, lerr := p.routes(r.Table)
			err = errors.Join(err, lerr, p.dropRoutes(routes))
			swept = append(swept, fmt.Sprintf("routing table %d", r.Table))
		}
	}
	return swept, err
}
