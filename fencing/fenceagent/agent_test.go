package fenceagent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/fencing/device"
)

func newAgent(t *testing.T, cfg Config) *Agent {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func passwordFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// asked lists the actions among calls.
func asked(calls []string) string {
	var actions []string
	for _, l := range calls {
		actions = append(actions, strings.Fields(l)[0])
	}
	return strings.Join(actions, " ")
}

// Only a status of off confirms, after one of on and an off that succeeded.
func TestOff(t *testing.T) {
	for _, c := range []struct {
		mode  string
		want  device.Outcome
		said  string
		calls string
	}{
		{"", device.Confirmed, "switched off, and its status is off", "status off status"},
		{"fail-once", device.Confirmed, "its status is off", "status off status off status"},
		{"deny", device.Refused, "off: exit code 3 (login denied): login with  denied", "status off"},
		{"deny-status", device.Refused, "status: exit code 3 (login denied): denied", "status"},
		{"pretend", device.Refused, "its status is on", "status off status status off status"},
		{"args", device.Unknown, `exit code 2 and does not say "Status: OFF": usage`, "status status"},
		{"mute", device.Unknown, "its status ends with exit code 0", "status status"},
		{"mute-after", device.Unknown, "its status ends with exit code 0", "status off status status"},
		{"odd", device.Unknown, `does not say "Status: OFF"`, "status status"},
		{"signal", device.Unknown, "off: ended by signal killed", "status off status off"},
		{"blind", device.Unknown, "as it was before; it has not said on of the node", "status off status"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			cfg, calls := fake(t, c.mode)
			out, said := newAgent(t, cfg).Off(t.Context(), device.Order{Node: "beta"})
			got := asked(calls())
			if out != c.want || !strings.Contains(strings.Join(strings.Fields(said), " "), strings.Join(strings.Fields(c.said), " ")) || got != c.calls {
				t.Errorf("%s: %s, after %q; want %s: %s, after %q", out, said, got, c.want, c.said, c.calls)
			}
		})
	}
}

// An agent that hangs is ended, and what it did is unknown.
func TestTimeOut(t *testing.T) {
	for mode, c := range map[string]struct{ calls, want string }{
		"hang": {"status off", "off: too long"}, "hang-status": {"status", "status: too long"}, "hang-after": {"status off status", "switched off, and status: too long"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cfg, calls := fake(t, mode)
			a := newAgent(t, cfg)
			if err := a.check(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				for ; ; time.Sleep(time.Millisecond) {
					if all := calls(); all[0] != "" && asked(all) == c.calls {
						cancel(&device.Error{Text: "too long"})
						return
					}
				}
			}()
			out, said := a.Off(ctx, device.Order{Node: "beta"})
			if out != device.Unknown || said != c.want {
				t.Errorf("%s: %s", out, said)
			}
		})
	}
}

// A secret goes to the agent on its standard input, and nowhere else.
func TestSecret(t *testing.T) {
	cfg, calls := fake(t, "deny")
	cfg.Options["password_file"] = passwordFile(t, " sword  fish\n", 0o600)
	a := newAgent(t, cfg)
	_, said := a.Off(t.Context(), device.Order{})
	if got := calls()[1]; got != `off password=" sword  fish" leaks=false` {
		t.Errorf("the agent was asked %q", got)
	}
	if strings.Contains(said+a.Name(), "sword") || !strings.Contains(said, "login with \"***\" denied") {
		t.Errorf("said %q of %q", said, a.Name())
	}
}

func TestSecretFiles(t *testing.T) {
	for text, want := range map[string]string{"": "holds 0 bytes", "\n": "holds 0 bytes", "one\ntwo\n": "one line with the secret"} {
		cfg, _ := fake(t, "")
		cfg.Options["password_file"] = passwordFile(t, text, 0o600)
		if err := Check(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "two") {
			t.Errorf("%q: %v", text, err)
		}
	}
	cfg, calls := fake(t, "")
	cfg.Options["password_file"] = passwordFile(t, "x", 0o644)
	if err := Check(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "option password_file: ") || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v", err)
	}
	if out, said := newAgent(t, cfg).Off(t.Context(), device.Order{}); out == device.Confirmed || !strings.Contains(said, "chmod 600") || calls()[0] != "" {
		t.Errorf("%s: %s; called %q", out, said, calls())
	}
}

func TestMonitor(t *testing.T) {
	for mode, want := range map[string]string{"": "", "broken": "monitor: exit code 1 (a generic error)"} {
		cfg, _ := fake(t, mode)
		err := newAgent(t, cfg).Monitor(t.Context())
		if want == "" != (err == nil) || err != nil && err.Error() != want {
			t.Errorf("%q: %v", mode, err)
		}
	}
	cfg, _ := fake(t, "hang")
	a := newAgent(t, cfg)
	if err := a.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Monitor(ctx); err == nil {
		t.Error("one that hangs is fit")
	}
}

// What the agent does not want is said before anything is switched.
func TestCheck(t *testing.T) {
	for want, change := range map[string]func(map[string]string){
		"":                               func(map[string]string) {},
		"it knows no option plugg, only": func(o map[string]string) { o["plugg"] = "1" },
		"it needs option state":          func(o map[string]string) { delete(o, "state") },
		"two names of one":               func(o map[string]string) { o["port"] = "1" },
		"no option community_file":       func(o map[string]string) { o["community_file"] = "/x" },
	} {
		cfg, calls := fake(t, "")
		change(cfg.Options)
		err := Check(t.Context(), cfg)
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), strings.TrimPrefix(want, "no option community_file")) {
			t.Errorf("%v, want %q", err, want)
		}
		if want != "" {
			if out, said := newAgent(t, cfg).Off(t.Context(), device.Order{}); out != device.Refused || calls()[0] != "" {
				t.Errorf("%s: %s, called %q", out, said, calls())
			}
		}
	}
	if err := Check(t.Context(), Config{Agent: "fence_not_there"}); !os.IsNotExist(unwrapped(err)) || !strings.Contains(err.Error(), "not installed (Debian: fence-agents)") {
		t.Errorf("%v", err)
	}
}

func unwrapped(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		if os.IsNotExist(err) {
			return err
		}
		err = u.Unwrap()
	}
}

func TestNewRefuses(t *testing.T) {
	for want, cfg := range map[string]Config{
		"is not the name":             {Agent: "ipmilan"},
		"nor the absolute path":       {Agent: "../fence_x"},
		"it switches nothing off":     {Agent: "/tmp/fence_dummy"},
		"no proof that the node":      {Agent: "fence_crosslink"},
		"put it into a file":          {Agent: "fence_x", Options: map[string]string{"password": "x"}},
		"a wrong plug would count":    {Agent: "fence_x", Options: map[string]string{"missing_as_off": "1"}},
		"says off of a machine whose": {Agent: "fence_skalar"},
		"that it does not find":       {Agent: "fence_zvmip"},
		"cut off its network would":   {Agent: "fence_azure_arm", Options: map[string]string{"network_fencing": "1"}},
		"print its secrets":           {Agent: "fence_x", Options: map[string]string{"verbose": "1"}},
		"not for the configuration":   {Agent: "fence_x", Options: map[string]string{"action": "on"}},
		"want one line":               {Agent: "fence_x", Options: map[string]string{"plug": "1\naction=on"}},
		"is not the name of an optio": {Agent: "fence_x", Options: map[string]string{"a=b": "1"}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
}

func TestName(t *testing.T) {
	a := newAgent(t, Config{Agent: "fence_apc", Options: map[string]string{"ipaddr": "10.0.0.9", "plug": "3", "username": "apc"}})
	if a.Name() != "fence_apc 10.0.0.9 3" {
		t.Errorf("%q", a.Name())
	}
}

func TestInput(t *testing.T) {
	got := string(input("off", map[string]string{"b": `"x"`, "a": "y z"}, map[string]string{"password": "w "}))
	if got != "action=off\na=y z\nb=\"\"x\"\"\npassword=\"w \"\n" {
		t.Errorf("%q", got)
	}
}

// What Debian's agents say of themselves is understood, and one of them is led
// through its life.
func TestOfDebian(t *testing.T) {
	if _, err := os.Stat(Dir + "/fence_dummy"); err != nil {
		t.Skipf("needs fence-agents: %v", err)
	}
	for cfg, want := range map[string]string{"fence_ipmilan": "", "fence_apc": "it needs option plug, which outlet", "fence_scsi": "has no action reboot"} {
		options := map[string]string{"ip": "127.0.0.1", "username": "x"}
		if cfg == "fence_ipmilan" {
			options["ipmitool_path"] = "/bin/true"
		}
		err := Check(t.Context(), Config{Agent: cfg, Options: options})
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", cfg, err)
		}
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "fence_testing") // fence_dummy is refused
	if err := os.Symlink(Dir+"/fence_dummy", name); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := os.WriteFile(state, []byte("on"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newAgent(t, Config{Agent: name, Options: map[string]string{"status_file": state}})
	if err := a.Monitor(t.Context()); err != nil {
		t.Error(err)
	}
	if out, said := a.Off(t.Context(), device.Order{}); out != device.Confirmed {
		t.Errorf("%s: %s", out, said)
	}
	if b, err := os.ReadFile(state); err != nil || string(b) != "off" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestMetadata(t *testing.T) {
	for name, want := range map[string]struct {
		fits     bool
		required []string
	}{"ipmilan": {true, nil}, "redfish": {true, []string{"username"}}, "dummy": {true, nil}, "scsi": {false, []string{"plug"}}} {
		text, err := os.ReadFile("testdata/fence_" + name + ".xml")
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseMetadata(text)
		if err != nil {
			t.Fatal(err)
		}
		var required []string
		for _, p := range m.Parameters {
			if p.Required && !p.Deprecated {
				required = append(required, p.Name)
			}
		}
		if m.Name != "fence_"+name || m.fits() == nil != want.fits || !slices.Equal(required, want.required) {
			t.Errorf("%s: %v, requires %q", m.Name, m.fits(), required)
		}
	}
}

// The values of options are judged by their types.
func TestValues(t *testing.T) {
	text, err := os.ReadFile("testdata/fence_ipmilan.xml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMetadata(text)
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string]bool{"lanplus=1": true, "lanplus=True": true, "lanplus=maybe": false, "auth=md5": true, "auth=md4": false,
		"login_timeout=5": true, "login_timeout=-1": false, "ipport=623": true, "ipport=x": false} {
		name, value, _ := strings.Cut(option, "=")
		err := m.refuse(map[string]string{name: value})
		if (err == nil) != want || err != nil && strings.Contains(err.Error(), "md4") {
			t.Errorf("%s: %v", option, err)
		}
	}
	for _, given := range []map[string]string{{"plug": "1,2"}, {"port": "1,2"}, {"plug": "1+2", "plug_separator": "+"}} {
		if err := m.refuse(given); err == nil || !strings.Contains(err.Error(), "give each a device of its own") {
			t.Errorf("%v: %v", given, err)
		}
	}
	if err := m.refuse(map[string]string{"plug": "1,2", "plug_separator": "+"}); err != nil {
		t.Errorf("one plug with a comma in its name: %v", err)
	}
	for i, p := range m.Parameters {
		m.Parameters[i].Required = p.Name == "ipaddr" || p.Name == "ip"
	}
	if err := m.refuse(map[string]string{"ipaddr": "1.2.3.4"}); err != nil {
		t.Errorf("the old name of what is needed: %v", err)
	}
}

func FuzzMetadata(f *testing.F) {
	for _, name := range []string{"dummy", "ipmilan", "redfish", "scsi"} {
		text, err := os.ReadFile("testdata/fence_" + name + ".xml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMetadata(text)
		if err != nil {
			return
		}
		if m.fits() == nil && !slices.Contains(m.Actions, "status") {
			t.Error("an agent without status proves nothing")
		}
		given := map[string]string{"surprise": "x"}
		if m.find("surprise") == nil && m.refuse(given) == nil {
			t.Error("an unknown option is accepted")
		}
	})
}

// Whatever an agent prints: only exit code 2 with the word OFF, and without
// any other, is off.
func FuzzProof(f *testing.F) {
	f.Add(2, []byte("Status: OFF\n"))
	f.Add(0, []byte("Status: ON\n"))
	f.Add(2, []byte("Status: ON\nStatus: OFF\n"))
	f.Add(2, []byte("Parse error: Ignoring unknown option 'plugg=1'\n"))
	f.Add(1, []byte("Status: OFF"))
	f.Fuzz(func(t *testing.T, code int, printed []byte) {
		is, said := judge(code, printed)
		lower := strings.ToLower(string(printed))
		if is == isOff && (code != 2 || !strings.Contains(lower, "off") || strings.Count(lower, "status:") < 1) || said == "" {
			t.Errorf("%d %q: %d: %s", code, printed, is, said)
		}
		if again, _ := judge(code, append([]byte("Status: ON\n"), printed...)); again == isOff {
			t.Errorf("%d %q: off although it says on as well", code, printed)
		}
	})
}
