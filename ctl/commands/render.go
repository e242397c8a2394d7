package commands

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

// renderStatus draws a status for people. It is a function of its arguments
// alone: a block per resource, then members that need a word, then trouble.
func renderStatus(st *apiv1.Status, s style) string {
	var b strings.Builder
	for i := range st.Resources {
		switch {
		case st.Witness():
			renderWitnessed(&b, st, &st.Resources[i], s)
			continue
		case i > 0:
			b.WriteByte('\n')
		}
		renderResource(&b, st, &st.Resources[i], s)
	}
	switch {
	case st.Witness():
		fmt.Fprintf(&b, "%s  this node, the witness   up %s   leader of the ledger: %s\n", s.bold(clean(st.Node)), secondsText(st.UptimeS), orNone(clean(st.Quorum.Leader)))
	case len(st.Resources) == 0:
		fmt.Fprintf(&b, "%s  no resources here\n", s.bold(st.Node))
	}
	renderMembers(&b, st, s)
	renderFencing(&b, st, s)
	renderTrouble(&b, st, s)
	return b.String()
}

// renderHead draws what the ledger says of a resource, without ending the line.
func renderHead(b *strings.Builder, st *apiv1.Status, r *apiv1.Resource, s style) {
	who := s.warn("no Primary")
	if r.Primary != "" {
		who = "Primary " + s.bold(clean(r.Primary))
	}
	fmt.Fprintf(b, "%s  %s  token %d  arbitration %s (%s)", s.bold(r.Name), who, r.Token, r.Arbitration, votersText(st, s))
}

// renderProtocol ends the head with the protocol, where that is not the one that
// loses nothing, or not the one that was asked for.
func renderProtocol(b *strings.Builder, r *apiv1.Resource, s style) {
	if r.Protocol != "C" && r.Protocol != "" {
		fmt.Fprintf(b, "  protocol %s", clean(r.Protocol))
	}
	b.WriteByte('\n')
	if r.ProtocolWhy != "" {
		fmt.Fprintf(b, "  %s %s: %s\n", s.warn("protocol"), clean(r.Protocol), clean(r.ProtocolWhy))
	}
}

// renderWitnessed draws a resource that this node has no copy of.
func renderWitnessed(b *strings.Builder, st *apiv1.Status, r *apiv1.Resource, s style) {
	renderHead(b, st, r, s)
	in := s.warn("none")
	if len(r.InSync) > 0 {
		in = clean(strings.Join(r.InSync, ", "))
	}
	fmt.Fprintf(b, "  in sync %s\n  %s\n", in, clean(r.Because))
}

func renderResource(b *strings.Builder, st *apiv1.Status, r *apiv1.Resource, s style) {
	renderHead(b, st, r, s)
	if r.LeaseMS > 0 {
		fmt.Fprintf(b, "  lease %d ms", r.LeaseMS)
	}
	renderProtocol(b, r, s)
	renderBecause(b, st, r)
	renderCopies(b, st, r, s)
	for i := range r.Volumes {
		renderVolume(b, r, &r.Volumes[i], s)
	}
	for i := range r.Peers {
		renderResync(b, &r.Peers[i], s)
	}
	renderVerify(b, r, s)
	renderSplit(b, r, s)
	renderKept(b, r, s)
	if r.Frozen {
		fmt.Fprintf(b, "  %s %s\n", s.bad("I/O FROZEN:"), clean(strings.Join(r.FrozenReasons, "; ")))
	}
	renderServices(b, r.Services, s)
	if p := r.LastProblem; p != nil && st.Time.Sub(p.Time) < problemShown {
		fmt.Fprintf(b, "  %s %s: %s\n", s.warn("last problem"), p.Time.Format("2006-01-02 15:04:05"), clean(p.Text))
		if p.Hint != "" {
			fmt.Fprintf(b, "    try: %s\n", clean(p.Hint))
		}
	}
}

// renderBecause says why it is as it is, where that is not as it should be.
func renderBecause(b *strings.Builder, st *apiv1.Status, r *apiv1.Resource) {
	switch {
	case r.Because == "":
	case r.Role == "Unknown": // not attached here, whatever the others do
		fmt.Fprintf(b, "  %s\n", clean(r.Because))
	case r.Primary == "":
		fmt.Fprintf(b, "  nobody is Primary: %s\n", clean(r.Because))
	case r.Primary == st.Node, connectedTo(r, r.Primary):
	case memberState(st, r.Primary) == apiv1.MemberAlive:
		fmt.Fprintf(b, "  this node waits: %s\n", clean(r.Because))
	default:
		fmt.Fprintf(b, "  %s is %s: %s\n", clean(r.Primary), memberState(st, r.Primary), clean(r.Because))
	}
}

func memberState(st *apiv1.Status, node string) string {
	for i := range st.Members {
		if st.Members[i].Name == node {
			return clean(st.Members[i].State)
		}
	}
	return apiv1.MemberUnknown
}

// problemShown is how long a problem stays in the human status.
const problemShown = 10 * time.Minute

func connectedTo(r *apiv1.Resource, node string) bool {
	return slices.ContainsFunc(r.Peers, func(p apiv1.Peer) bool { return p.Node == node && p.Connection == "Connected" })
}

func votersText(st *apiv1.Status, s style) string {
	q := st.Quorum
	text := fmt.Sprintf("%d of %d voters", q.Reachable, q.Voters)
	switch {
	case q.Replaced != "":
		return s.bad("this machine was replaced: " + clean(q.Replaced))
	case len(q.Refusing) > 0 && len(q.Unmet) == 0:
		return s.bad("this machine is new: it votes when " + clean(strings.Join(q.Refusing, " and ")) + " find the one before it silent")
	case len(q.Unmet) > 0:
		return s.bad("the ledger here was lost: it votes when it has met " + clean(strings.Join(q.Unmet, " and ")))
	case q.Joining:
		return s.warn("no vote here yet" + backText(st, ": catching up", "; it counts again when all three are there"))
	case !q.HasQuorum:
		return s.bad(text + ", NO QUORUM")
	case q.Alone:
		return s.warn("alone" + backText(st, ": the other votes again when it is back", ": the others vote again when both are back"))
	case q.Arranging != "":
		return s.warn(text + "; they change when this is settled: " + clean(q.Arranging))
	case q.Reachable < q.Voters:
		return s.warn(text)
	}
	return text
}

// backText is what an incomplete group waits for: of three, those that return vote
// again both or neither.
func backText(st *apiv1.Status, pair, three string) string {
	if st.Arbitration == "witness" {
		return three
	}
	return pair
}

// renderCopies draws a line for this node's copy and one per peer, in columns.
func renderCopies(b *strings.Builder, st *apiv1.Status, r *apiv1.Resource, s style) {
	name, role, disk := len(st.Node), len(r.Role), len(r.DiskState)
	for _, p := range r.Peers {
		name, role, disk = max(name, len(p.Node)), max(role, len(p.Role)), max(disk, len(p.DiskState))
	}
	role, disk = max(role, len("Secondary")), max(disk, len("Inconsistent"))
	line := func(node, roleWord, diskState, rest string) {
		fmt.Fprintf(b, "  %s  %s  %s  %s\n", pad(clean(node), name), pad(roleWord, role), s.disk(diskState, pad(diskState, disk)), strings.TrimRight(rest, " "))
	}
	rest := fmt.Sprintf("this node   up %s", secondsText(st.UptimeS))
	if r.Suspect {
		rest += "   " + s.warn("suspect: back from a crash")
	}
	if !slices.Contains(r.InSync, st.Node) {
		rest += "   " + s.warn("not in sync")
	}
	if r.AttachInS > 0 {
		rest += "   " + s.warn(fmt.Sprintf("answers again: attached in %d s", r.AttachInS))
	}
	line(st.Node, r.Role, r.DiskState, rest)
	for i := range r.Peers {
		p := &r.Peers[i]
		line(p.Node, p.Role, p.DiskState, peerText(r, p, s))
	}
}

func peerText(r *apiv1.Resource, p *apiv1.Peer, s style) string {
	text := p.Connection
	if p.Connection == "Connected" {
		if p.Path != "" {
			text += " via " + clean(strings.Join(append([]string{p.Path}, p.AlsoPaths...), " and "))
		}
	} else {
		text = s.warn(text)
		if p.DownS > 0 {
			text += " for " + secondsText(p.DownS)
		}
		if p.Reason != "" {
			text += ": " + clean(p.Reason)
		}
	}
	dirty := "0 dirty"
	if p.DirtyBytes > 0 {
		dirty = s.warn(bytesText(p.DirtyBytes) + " dirty")
	}
	text += "   " + dirty
	if p.BehindBytes > 0 {
		text += "   " + bytesText(p.BehindBytes) + " behind"
	}
	if !slices.Contains(r.InSync, p.Node) {
		text += "   " + s.warn("not in sync")
	}
	return text
}

func renderVolume(b *strings.Builder, r *apiv1.Resource, v *apiv1.Volume, s style) {
	fmt.Fprintf(b, "  volume %d  %s", v.Number, bytesText(v.SizeBytes))
	if v.Device != "" {
		fmt.Fprintf(b, "  %s (%s)", clean(v.Device), v.Frontend)
		c := &v.Counters
		fmt.Fprintf(b, "   %s w/s  %s", countText(c.WritesPerS), rateText(c.WriteBytesPerS))
		if c.WriteP99US > 0 {
			fmt.Fprintf(b, "  p99 %s", microsText(c.WriteP99US))
		}
	} else {
		fmt.Fprintf(b, "  %s", s.dim("on "+clean(v.Disk)))
	}
	if v.DiskState != r.DiskState {
		fmt.Fprintf(b, "  %s", s.disk(v.DiskState, v.DiskState))
	}
	if v.Counters.ErrorsTotal > 0 {
		fmt.Fprintf(b, "  %s", s.bad(fmt.Sprintf("%d errors", v.Counters.ErrorsTotal)))
	}
	b.WriteByte('\n')
	if len(v.OpenBy) > 0 {
		fmt.Fprintf(b, "    held open by %s\n", clean(strings.Join(v.OpenBy, ", ")))
	}
}

func renderResync(b *strings.Builder, p *apiv1.Peer, s style) {
	r := p.Resync
	if r == nil {
		return
	}
	way := "to " + p.Node
	if r.Direction == apiv1.FromPeer {
		way = "from " + p.Node
	}
	percent := 100.0
	if r.TotalBytes > 0 {
		percent = 100 * float64(r.DoneBytes) / float64(r.TotalBytes)
	}
	// Unfinished work never reads as done.
	if r.DoneBytes < r.TotalBytes {
		percent = min(percent, 99.9)
	}
	fmt.Fprintf(b, "  resync %s  %s %.1f %%  %s of %s", clean(way), bar(r.DoneBytes, r.TotalBytes, 24), percent, bytesText(r.DoneBytes), bytesText(r.TotalBytes))
	switch {
	case r.Paused && r.PausedBy != "":
		fmt.Fprintf(b, "  %s", s.warn("paused by "+clean(r.PausedBy)))
	case r.Paused:
		fmt.Fprintf(b, "  %s", s.warn("paused"))
	case r.ETAS < 0:
		fmt.Fprintf(b, "  %s", rateText(float64(r.RateBytesPerS)))
	default:
		fmt.Fprintf(b, "  %s  ETA %s", rateText(float64(r.RateBytesPerS)), secondsText(r.ETAS))
	}
	b.WriteByte('\n')
}

// renderServices draws one line for what is in order and one for each that is not.
func renderServices(b *strings.Builder, services []apiv1.Service, s style) {
	var fine []string
	state := ""
	for i := range services {
		v := &services[i]
		if v.Failures > 0 {
			fmt.Fprintf(b, "  service %s (%s) %s\n", clean(v.Name), v.Kind, s.warn(fmt.Sprintf("failed here %d of %d times, forgotten in %s: %s", v.Failures, v.FailureLimit, secondsText(v.ForgottenInS), clean(v.LastFailure))))
		}
		if v.Error != "" || v.State == apiv1.ServiceFailed {
			fmt.Fprintf(b, "  service %s (%s) %s: %s\n", clean(v.Name), v.Kind, s.bad(v.State), clean(v.Error))
			continue
		}
		if v.State != state && len(fine) > 0 {
			writeServices(b, fine, state, s)
			fine = nil
		}
		state = v.State
		fine = append(fine, clean(v.Name))
	}
	writeServices(b, fine, state, s)
}

func writeServices(b *strings.Builder, names []string, state string, s style) {
	if len(names) == 0 {
		return
	}
	word := state
	switch state {
	case apiv1.ServiceRunning:
		word = s.good(state)
	case apiv1.ServiceStarting, apiv1.ServiceStopping:
		word = s.warn(state)
	}
	fmt.Fprintf(b, "  services %s: %s\n", word, strings.Join(names, ", "))
}

// renderMembers draws the witness, and whoever is not well; on the witness
// everybody.
func renderMembers(b *strings.Builder, st *apiv1.Status, s style) {
	for i := range st.Members {
		m := &st.Members[i]
		sick := m.State != apiv1.MemberAlive || slices.ContainsFunc(m.Paths, sickPath)
		if m.Self || m.Kind != apiv1.KindWitness && !sick && !st.Witness() {
			continue
		}
		word := "node"
		if m.Kind == apiv1.KindWitness {
			word = "witness"
		}
		state := s.good(m.State)
		if m.State != apiv1.MemberAlive {
			state = s.bad(m.State)
		}
		fmt.Fprintf(b, "%s %s  %s", word, s.bold(clean(m.Name)), state)
		for _, p := range m.Paths {
			fmt.Fprintf(b, "  %s", pathText(p, s))
		}
		if len(m.Reasons) > 0 && sick {
			fmt.Fprintf(b, "  (%s)", clean(m.Reasons[0]))
		}
		b.WriteByte('\n')
	}
}

// sickPath reports whether a path is not what it should be.
func sickPath(p apiv1.Path) bool {
	return p.State != apiv1.MemberAlive || p.Streams != nil && (p.Streams.Use == apiv1.PathBad || p.Streams.Use == apiv1.PathHeld)
}

func pathText(p apiv1.Path, s style) string {
	text := clean(p.Name)
	if x := p.Streams; p.State == apiv1.MemberAlive && sickPath(p) {
		return s.bad(text+" "+clean(x.Use)) + " (" + clean(x.Because) + ")"
	}
	if p.State != apiv1.MemberAlive {
		return s.bad(text + " " + p.State)
	}
	if p.RTTUS > 0 {
		text += " " + microsText(p.RTTUS)
	}
	return text
}

func renderTrouble(b *strings.Builder, st *apiv1.Status, s style) {
	if st.Maintenance {
		fmt.Fprintf(b, "%s automatic actions are off; hactl maintenance off ends it\n", s.warn("maintenance:"))
	}
	for _, n := range st.Standby {
		fmt.Fprintf(b, "%s %s is not promoted; hactl standby %s --off ends it\n", s.warn("standby:"), clean(n), clean(n))
	}
	if p := st.LastProblem; p != nil && st.Resource(p.Resource) == nil && st.Time.Sub(p.Time) < problemShown {
		fmt.Fprintf(b, "%s %s: %s\n", s.warn("last problem"), p.Time.Format("2006-01-02 15:04:05"), clean(p.Text))
		if p.Hint != "" {
			fmt.Fprintf(b, "  try: %s\n", clean(p.Hint))
		}
	}
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
