package fenceagent

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// metadataMax bounds what an agent says of itself; the longest in Debian's
// fence-agents has 17 KiB.
const metadataMax = 1 << 20

// metadata is what this package wants to know of an agent.
type metadata struct {
	Name       string
	Parameters []parameter
	Actions    []string
}

// parameter is one option of an agent. A deprecated one is another name, of
// which Obsoletes of the right one tells.
type parameter struct {
	Name       string
	Required   bool // and has no default
	Deprecated bool
	Obsoletes  string
	Type       string // string, boolean, integer, second, select
	Default    string
	Values     []string
}

// parseMetadata reads the output of an agent's metadata action.
func parseMetadata(text []byte) (*metadata, error) {
	var x struct {
		XMLName    xml.Name `xml:"resource-agent"`
		Name       string   `xml:"name,attr"`
		Parameters []struct {
			Name       string `xml:"name,attr"`
			Required   string `xml:"required,attr"`
			Deprecated string `xml:"deprecated,attr"`
			Obsoletes  string `xml:"obsoletes,attr"`
			Content    struct {
				Type    string  `xml:"type,attr"`
				Default *string `xml:"default,attr"`
				Options []struct {
					Value string `xml:"value,attr"`
				} `xml:"option"`
			} `xml:"content"`
		} `xml:"parameters>parameter"`
		Actions []struct {
			Name string `xml:"name,attr"`
		} `xml:"actions>action"`
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // names are ASCII in all of them
	if err := d.Decode(&x); err != nil {
		return nil, fmt.Errorf("metadata of a fence agent: %w", err)
	}
	m := &metadata{Name: x.Name}
	for _, p := range x.Parameters {
		if p.Name == "" {
			return nil, errors.New("metadata of a fence agent: a parameter without a name")
		}
		n := parameter{Name: p.Name, Deprecated: isTrue(p.Deprecated), Obsoletes: p.Obsoletes, Type: p.Content.Type}
		n.Required = isTrue(p.Required) && p.Content.Default == nil
		if p.Content.Default != nil {
			n.Default = *p.Content.Default
		}
		for _, o := range p.Content.Options {
			n.Values = append(n.Values, o.Value)
		}
		m.Parameters = append(m.Parameters, n)
	}
	for _, a := range x.Actions {
		m.Actions = append(m.Actions, a.Name)
	}
	return m, nil
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

func (m *metadata) find(name string) *parameter {
	for i := range m.Parameters {
		if m.Parameters[i].Name == name {
			return &m.Parameters[i]
		}
	}
	return nil
}

// ipmitool is the program through which the agent speaks IPMI, as fence_ipmilan and
// its other names do; "" where it speaks something else. Debian's fence-agents does
// not ask for it to be installed.
func (m *metadata) ipmitool(given map[string]string) string {
	const option = "ipmitool_path"
	p := m.find(option)
	switch {
	case p == nil:
		return ""
	case given[option] != "":
		return given[option]
	}
	return p.Default
}

// fits says why the agent cannot prove that a node is off; nil: it can.
func (m *metadata) fits() error {
	for action, without := range map[string]string{
		"off":     "it does not switch anything off",
		"status":  "it does not say whether the node is off, so nothing it does is proven",
		"monitor": "it does not say whether it could be used",
		"reboot":  "it cuts the node off its storage or network and does not switch it off, and a node goes on writing to its own disks",
	} {
		if !slices.Contains(m.Actions, action) {
			return fmt.Errorf("it has no action %s: %s", action, without)
		}
	}
	return nil
}

// refuse says what in the options the agent does not want; nil: nothing. Agents
// only warn of an option that they do not know, and go on without it.
func (m *metadata) refuse(given map[string]string) error {
	var errs []error
	for _, p := range m.Parameters {
		old, has := given[p.Obsoletes]
		_, ok := given[p.Name]
		if ok && has {
			errs = append(errs, fmt.Errorf("options %s and %s are two names of one: leave %s=%s out", p.Name, p.Obsoletes, p.Obsoletes, old))
		}
		if p.Required && !p.Deprecated && !ok && !has && !slices.Contains(ours, p.Name) {
			errs = append(errs, fmt.Errorf("it needs option %s%s", p.Name, wanted[p.Name]))
		}
	}
	errs = append(errs, m.severalPlugs(given))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		p := m.find(name)
		if p == nil {
			errs = append(errs, fmt.Errorf("it knows no option %s, only %s", name, strings.Join(m.names(), ", ")))
		} else if err := p.judge(given[name]); err != nil {
			errs = append(errs, fmt.Errorf("option %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// severalPlugs refuses more than one outlet in one device: the agents' library says on
// of them while any is, so a wrong one beside a right one would never be noticed.
func (m *metadata) severalPlugs(given map[string]string) error {
	const option = "plug_separator"
	p := m.find(option)
	if p == nil {
		return nil
	}
	separator := p.Default
	if s, ok := given[option]; ok {
		separator = s
	}
	for _, name := range []string{"plug", "port"} {
		if separator != "" && strings.Contains(given[name], separator) {
			return fmt.Errorf("option %s: %q are several outlets: give each a device of its own, and all of them one level", name, given[name])
		}
	}
	return nil
}

// wanted says what an option is that most agents have.
var wanted = map[string]string{
	"plug": ", which outlet, blade or machine of the device is to be switched", "port": ", which outlet, blade or machine of the device is to be switched",
	"ip": ", the device's address", "username": ", the account on the device",
}

func (m *metadata) names() []string {
	var out []string
	for _, p := range m.Parameters {
		if !p.Deprecated && !slices.Contains(ours, p.Name) {
			out = append(out, p.Name)
		}
	}
	slices.Sort(out)
	return out
}

// judge says why a value is none; its text does not hold the value, which may be
// a secret.
func (p *parameter) judge(value string) error {
	switch p.Type {
	case "boolean":
		if !slices.Contains([]string{"1", "0", "yes", "no", "on", "off", "true", "false"}, strings.ToLower(value)) {
			return errors.New("want true or false")
		}
	case "integer":
		if _, err := strconv.Atoi(value); err != nil {
			return errors.New("want a number")
		}
	case "second":
		if n, err := strconv.ParseFloat(value, 64); err != nil || n < 0 {
			return errors.New("want a number of seconds")
		}
	case "select":
		if len(p.Values) > 0 && !slices.Contains(p.Values, value) {
			return fmt.Errorf("want one of %s", strings.Join(p.Values, ", "))
		}
	}
	return nil
}
