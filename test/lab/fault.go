package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// VolumeDisk is the backing disk of the lab's volume, by its rules' name.
const VolumeDisk = "volume.img"

// Fault gives the backing disk of a node's volume a rule (see package fault), or
// with "clear" or "release" takes them away or lets go on what hangs. A node's
// agent forgets them when it ends.
func (l *Lab) Fault(ctx context.Context, name, rule string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if !n.Init.alive() {
		return fmt.Errorf("lab: %s is off", name)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(fmt.Sprintf("/proc/%d/root", n.Init.PID), faultSocket))
	if err != nil {
		return fmt.Errorf("lab: disk of %s: %w (is it an agent of a lab build?)", name, err)
	}
	defer c.Close() //nolint:errcheck // the answer is there, or why not
	if _, err := fmt.Fprintf(c, "%s %s\n", VolumeDisk, rule); err != nil {
		return fmt.Errorf("lab: disk of %s: %w", name, err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return fmt.Errorf("lab: disk of %s: %w", name, err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return fmt.Errorf("lab: disk of %s: %s", name, answer)
	}
	return nil
}
