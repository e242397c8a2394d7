package fenceagent

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hapair/fencing/device"
)

// An agent that runs ipmitool is refused where that is missing, and says where to
// look when it fails: what ipmitool said is not told.
func TestThroughIPMITool(t *testing.T) {
	cfg, calls := fake(t, "broken")
	text := strings.Replace(fakeProgram, "</parameters>", `<parameter name="ipmitool_path"><content type="string" default="/nowhere/ipmitool" /></parameter></parameters>`, 1)
	if err := os.WriteFile(cfg.Agent, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	err := Check(t.Context(), cfg)
	if err == nil || !os.IsNotExist(unwrapped(err)) || !strings.Contains(err.Error(), "runs /nowhere/ipmitool, which is not installed (Debian: ipmitool)") {
		t.Errorf("%v", err)
	}
	if out, said := newAgent(t, cfg).Off(t.Context(), device.Order{}); out != device.Refused || calls()[0] != "" {
		t.Errorf("%s: %s; called %q", out, said, calls())
	}
	cfg.Options["ipmitool_path"] = "/bin/true"
	err = newAgent(t, cfg).Monitor(t.Context())
	if want := "monitor: exit code 1 (a generic error; where the board can be reached: look at username, password, cipher, privlvl)"; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

const (
	ipmiAgent    = Dir + "/fence_ipmilan"
	ipmiPassword = "lab-swordfish"
)

// needsIPMI skips where the real programs are missing.
func needsIPMI(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range append(programs, ipmiAgent) {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("%v; run: sudo apt-get install -y fence-agents ipmitool openipmi", err)
		}
	}
}

// ipmi is the configuration for a board on this machine.
func ipmi(t *testing.T, port int, more map[string]string) Config {
	t.Helper()
	options := map[string]string{"ip": "127.0.0.1", "ipport": strconv.Itoa(port), "lanplus": "1", "cipher": "3", "username": "ha", "privlvl": "operator",
		"password_file": passwordFile(t, ipmiPassword+"\n", 0o600), "power_wait": "0", "power_timeout": "1"}
	maps.Copy(options, more)
	return Config{Agent: "fence_ipmilan", Options: options}
}

// silentBoard hears everything and answers nothing. heard gets a word when it has
// heard something.
func silentBoard(t *testing.T) (port int, heard <-chan struct{}) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // nothing is buffered
	word := make(chan struct{}, 1)
	go func() {
		for {
			if _, err := c.Read(make([]byte, 512)); err != nil {
				return
			}
			select {
			case word <- struct{}{}:
			default:
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port, word
}

// running finds processes by a word among their arguments, without those that are dead.
func running(t *testing.T, word string) (dirs []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && bytes.Contains(append([]byte{0}, text...), []byte("\x00"+word+"\x00")) {
			dirs = append(dirs, filepath.Dir(file))
		}
	}
	return dirs
}

// The real fence_ipmilan waits for a board that does not answer. When its time is over
// ipmitool ends with it; the password is not among its arguments.
func TestIPMISilent(t *testing.T) {
	t.Parallel()
	needsIPMI(t, "/usr/bin/ipmitool")
	port, heard := silentBoard(t)
	a := newAgent(t, ipmi(t, port, map[string]string{"power_timeout": "60"}))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		<-heard
		if len(running(t, strconv.Itoa(port))) == 0 {
			t.Error("ipmitool does not run: this test would see nothing")
		}
		for _, dir := range running(t, ipmiAgent) {
			for _, file := range []string{"cmdline", "environ"} {
				if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && bytes.Contains(text, []byte(ipmiPassword)) {
					t.Errorf("the agent's %s shows the password", file)
				}
			}
		}
		cancel(&device.Error{Text: "too long"})
	}()
	begin := time.Now()
	if out, said := a.Off(ctx, device.Order{}); out != device.Unknown || said != "status: too long" {
		t.Errorf("%s: %s", out, said)
	}
	for over := time.Now().Add(2 * time.Second); len(running(t, strconv.Itoa(port))) > 0; time.Sleep(time.Millisecond) { // killed, and not buried yet
		if time.Now().After(over) {
			t.Fatalf("left behind: %q", running(t, strconv.Itoa(port)))
		}
	}
	t.Logf("broken off after %s", time.Since(begin))
	a = newAgent(t, ipmi(t, port, nil))
	if out, said := a.Off(t.Context(), device.Order{}); out != device.Unknown || !strings.Contains(said, "ERROR: Connection timed out") {
		t.Errorf("%s: %s", out, said)
	}
}

// simulatedBoard runs OpenIPMI's simulator; the file it returns says 1 for on, 0 for off
// and nothing for what nobody knows.
func simulatedBoard(t *testing.T) (port int, power string) {
	t.Helper()
	dir := t.TempDir()
	power = filepath.Join(dir, "power")
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port = c.LocalAddr().(*net.UDPAddr).Port
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	chassis := "#!/bin/sh\ncase \"$*\" in\n'get power') read p < " + power + " && echo power:$p;;\n'set power '*) echo $3 > " + power + ";;\nesac\n"
	lan := fmt.Sprintf("name %q\nset_working_mc 0x20\nstartlan 1\naddr 127.0.0.1 %d\npriv_limit admin\nallowed_auths_operator md5\nguid a123456789abcdefa123456789abcdef\nendlan\nchassis_control %q\nuser 2 true %q %q operator 10 md5\n",
		"board", port, filepath.Join(dir, "chassis"), "ha", ipmiPassword)
	for name, text := range map[string]string{"chassis": chassis, "lan": lan, "commands": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nmc_enable 0x20\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/usr/bin/ipmi_sim", "-n", "-c", filepath.Join(dir, "lan"), "-f", filepath.Join(dir, "commands"), "-s", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	})
	awaitBoard(t, port)
	return port, power
}

// awaitBoard asks, with ASF's ping, until the board answers.
func awaitBoard(t *testing.T, port int) {
	t.Helper()
	for over := time.Now().Add(10 * time.Second); ; {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write([]byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 0, 0, 0})
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // without it Read fails at once
			_, err = c.Read(make([]byte, 512))
		}
		_ = c.Close() // nothing is buffered
		if err == nil {
			return
		}
		if time.Now().After(over) {
			t.Fatalf("the board does not answer: %v", err)
		}
	}
}

// What the real fence_ipmilan makes of a board that speaks IPMI 2.0.
func TestIPMISimulated(t *testing.T) {
	t.Parallel()
	needsIPMI(t, "/usr/bin/ipmitool", "/usr/bin/ipmi_sim")
	port, power := simulatedBoard(t)
	wrong := map[string]string{"password_file": passwordFile(t, "guess\n", 0o600)}
	const where = "exit code 1 (a generic error; where the board can be reached: look at username, password, cipher, privlvl)"
	for _, c := range []struct {
		name, power string // power and, with a slash, what becomes of it after the monitor
		more        map[string]string
		monitor     string // what monitor says; "" for nothing
		want        device.Outcome
		said        string
		after       string
	}{
		{"on", "1", nil, "", device.Confirmed, "switched off, and its status is off", "0"},
		{"off already", "0", nil, "", device.Unknown, "it has not said on of the node", "0"},
		{"goes off by itself", "1/0", nil, "", device.Confirmed, "switched off, and its status is off", "0"},
		{"wrong password", "1", wrong, where, device.Unknown, where, "1"},
		{"no such account", "1", map[string]string{"username": "nobody"}, where, device.Unknown, where, "1"},
		{"a cipher that it has not", "1", map[string]string{"cipher": "17"}, where, device.Unknown, where, "1"},
		{"an account that may not switch", "1", map[string]string{"privlvl": "user"}, "", device.Unknown, "Timed out waiting to power OFF", "1"},
		{"nobody knows", "", nil, where, device.Unknown, where, ""},
	} {
		is, then, falls := strings.Cut(c.power, "/")
		if err := os.WriteFile(power, []byte(is+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		met := time.Now()
		a := newAgent(t, ipmi(t, port, c.more))
		err := a.Monitor(t.Context())
		if (err == nil) != (c.monitor == "") || err != nil && !strings.Contains(err.Error(), c.monitor) {
			t.Errorf("%s: monitor: %v", c.name, err)
		}
		if falls {
			if err := os.WriteFile(power, []byte(then+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, said := a.Off(t.Context(), device.Order{Met: met})
		if out != c.want || !strings.Contains(said, c.said) || strings.Contains(said, "guess") || strings.Contains(said, ipmiPassword) {
			t.Errorf("%s: %s: %s", c.name, out, said)
		}
		if after, err := os.ReadFile(power); err != nil || strings.TrimSpace(string(after)) != c.after {
			t.Errorf("%s: power %q, %v", c.name, after, err)
		}
	}
}
