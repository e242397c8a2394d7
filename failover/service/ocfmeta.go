package service

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// ocfMetadataMax bounds what an agent says of itself; the longest in Debian's
// resource-agents has 50 KiB.
const ocfMetadataMax = 1 << 20

// ocfMetadata is what this package wants to know of an agent.
type ocfMetadata struct {
	Name       string
	Parameters []ocfParameter
	Actions    []ocfAction
}

type ocfParameter struct {
	Name       string
	Required   bool
	Deprecated bool
}

// ocfAction is an action with the time-out that the agent asks for; 0: none.
type ocfAction struct {
	Name    string
	Timeout time.Duration
}

// parseOCFMetadata reads the output of an agent's meta-data action. Numbers and
// booleans that make no sense count as not given: agents are written by many.
func parseOCFMetadata(text []byte) (*ocfMetadata, error) {
	var x struct {
		XMLName    xml.Name `xml:"resource-agent"`
		Name       string   `xml:"name,attr"`
		Parameters []struct {
			Name       string    `xml:"name,attr"`
			Required   string    `xml:"required,attr"`
			Deprecated string    `xml:"deprecated,attr"`
			Gone       *struct{} `xml:"deprecated"`
			Content    struct {
				Default string `xml:"default,attr"`
			} `xml:"content"`
		} `xml:"parameters>parameter"`
		Actions []struct {
			Name    string `xml:"name,attr"`
			Timeout string `xml:"timeout,attr"`
		} `xml:"actions>action"`
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // names are ASCII in all of them
	if err := d.Decode(&x); err != nil {
		return nil, fmt.Errorf("metadata of a resource agent: %w", err)
	}
	m := &ocfMetadata{Name: x.Name}
	for _, p := range x.Parameters {
		if p.Name == "" {
			return nil, errors.New("metadata of a resource agent: a parameter without a name")
		}
		required := ocfTrue(p.Required) && p.Content.Default == ""
		m.Parameters = append(m.Parameters, ocfParameter{p.Name, required, p.Gone != nil || ocfTrue(p.Deprecated)})
	}
	for _, a := range x.Actions {
		m.Actions = append(m.Actions, ocfAction{a.Name, ocfTimeout(a.Timeout)})
	}
	return m, nil
}

func ocfTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// ocfTimeout reads a time as Pacemaker does: a bare number is seconds.
func ocfTimeout(s string) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 20); err == nil {
		return time.Duration(n) * time.Second
	}
	d, err := time.ParseDuration(strings.TrimSuffix(s, "ec"))
	if err != nil || d < 0 {
		return 0
	}
	return d
}

// refuse says what in the parameters the agent does not want; nil: nothing.
func (m *ocfMetadata) refuse(given map[string]string) error {
	var known, missing, unknown []string
	for _, p := range m.Parameters {
		known = append(known, p.Name)
		if _, ok := given[p.Name]; p.Required && !p.Deprecated && !ok {
			missing = append(missing, p.Name)
		}
	}
	for name := range given {
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	var errs []error
	if len(unknown) > 0 {
		errs = append(errs, fmt.Errorf("it knows no parameter %s, only %s", strings.Join(unknown, ", "), strings.Join(known, ", ")))
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("it needs parameter %s", strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}

// check asks the agent, once, what it is.
func (o *ocfService) check(ctx context.Context) error {
	if o.checked {
		return nil
	}
	text, err := o.metadata(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return permanent{fmt.Errorf("ocf agent %s is not installed (Debian: resource-agents): %w", o.cfg.Agent, err)}
	case err != nil:
		return fmt.Errorf("ask ocf agent %s what it is: %w", o.cfg.Agent, err)
	}
	m, err := parseOCFMetadata(text)
	if err != nil { // Pacemaker runs such agents, and so do we
		o.log.Warn("parameters are not checked", zap.Error(err))
		o.checked = true
		return nil
	}
	if err := m.refuse(o.cfg.Parameters); err != nil {
		return permanent{fmt.Errorf("ocf agent %s: %w", o.cfg.Agent, err)}
	}
	o.warn(m)
	o.checked = true
	return nil
}

// warn compares the time-outs with what the agent asks for.
func (o *ocfService) warn(m *ocfMetadata) {
	limits := map[string]time.Duration{"start": o.cfg.StartTimeout, "stop": o.cfg.StopTimeout, "monitor": o.cfg.MonitorTimeout}
	for _, a := range m.Actions {
		if limit, ok := limits[a.Name]; ok && limit < a.Timeout {
			o.log.Warn("the time-out is shorter than the agent asks for", zap.String("action", a.Name), zap.Duration("timeout", limit),
				zap.Duration("wanted", a.Timeout))
		}
	}
}

// metadata runs the agent's meta-data action and returns what it printed.
func (o *ocfService) metadata(ctx context.Context) ([]byte, error) {
	var printed []byte
	err := o.run(ctx, invocation{action: "meta-data", argv: []string{o.program(), "meta-data"}, env: o.environment("meta-data", metadataLimit),
		limit: metadataLimit, quiet: true, into: &printed})
	return printed, err
}
