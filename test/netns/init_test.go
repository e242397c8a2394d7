package netns

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"

	"hapair/test/lab"
)

// A pair as its manual begins: hactl init on one machine, hactl join on the others,
// TLS with certificates of the cluster's own, metadata at the end of the disk. Then a
// power cut.
func TestPairFromInit(t *testing.T) {
	p := newPair(t, false, func(o *lab.Options) { o.NoAgents = true })
	hactl, err := p.LookPath("hactl")
	p.must(err)
	begin := exec.Command(hactl, "init", "--force", "--cluster", "shop", "--node", "alpha=crossover:10.99.0.1,lan:192.168.1.11",
		"--node", "beta=crossover:10.99.0.2,lan:192.168.1.12", "--witness", "gamma=192.168.1.13", "--resource", p.Resource(), "--disk", "/disks/"+lab.VolumeDisk)
	out, err := begin.StdoutPipe()
	p.must(err)
	p.must(p.Enter("alpha", begin))
	t.Cleanup(func() { begin.Process.Kill() }) //nolint:errcheck // it may have ended
	invited := map[string][]string{}
	for lines := bufio.NewScanner(out); len(invited) < 2 && lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 3 && words[0] == "hactl" && words[1] == "join" {
			invited[words[3]] = append(words, "--force") // hactl join --node NAME CODE
		}
	}
	for node, join := range invited {
		p.run(node, join...)
	}
	p.must(begin.Wait())
	for _, node := range []string{"alpha", "beta"} {
		p.run(node, "hactl", "create-metadata", p.Resource(), "--assume-clean", "--force")
		if text := p.run(node, "hactl", "check-metadata", p.Resource()); !strings.Contains(text, "in order") {
			t.Errorf("%s: %s", node, text)
		}
	}
	for _, node := range []string{"alpha", "beta", "gamma"} {
		p.must(p.Start(node))
	}
	primary, survivor := p.settle()
	write := func(node string, c string) {
		p.run(node, "/bin/sh", "-c", "head -c 4096 /dev/zero | tr '\\0' "+c+" | dd of="+p.device(node)+" bs=4096 iflag=fullblock oflag=direct conv=notrunc status=none")
	}
	write(primary, "a")
	p.must(p.PowerOff(primary))
	p.takeover(survivor)
	if got := p.run(survivor, "/bin/sh", "-c", "dd if="+p.device(survivor)+" bs=4096 count=1 iflag=direct status=none | tr -d a | wc -c"); strings.TrimSpace(got) != "0" {
		t.Errorf("the survivor reads something else: %s bytes", got)
	}
	p.must(p.PowerOn(primary))
	p.must(p.Start(primary))
	p.rejoined(primary)
	write(survivor, "b")
	p.finish()
}
