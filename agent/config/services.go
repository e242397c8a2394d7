package config

import (
	"hapair/failover/plan"
	"hapair/failover/service"
)

// Spec says what the service is, for whoever runs it.
func (s *Service) Spec() service.Spec {
	switch {
	case s.Mount != nil:
		return service.Spec{Mount: &service.Mount{Path: s.Mount.Path, Type: s.Mount.Type, Options: s.Mount.Options, Volume: s.Mount.Volume}}
	case s.Systemd != "":
		return service.Spec{Systemd: &service.Systemd{Unit: s.Systemd, StopTimeout: s.StopTimeout}}
	case s.Exec != nil:
		return service.Spec{Exec: &service.Exec{Label: s.Name, Start: s.Exec.Start, Stop: s.Exec.Stop, Status: s.Exec.Status,
			StartTimeout: s.StartTimeout, StopTimeout: s.StopTimeout, StatusTimeout: s.MonitorTimeout}}
	case s.OCF != nil:
		return service.Spec{OCF: s.ocf()}
	case s.Address != nil:
		return service.Spec{Address: s.Address.vip()}
	}
	return service.Spec{}
}

func (s *Service) ocf() *service.OCF {
	return &service.OCF{Agent: s.OCF.Agent, Instance: s.Name, Parameters: s.OCF.Parameters, CheckLevel: s.OCF.CheckLevel,
		StartTimeout: s.StartTimeout, StopTimeout: s.StopTimeout, MonitorTimeout: s.MonitorTimeout}
}

// Limits bound one attempt each.
func (s *Service) Limits() service.Limits {
	return service.Limits{Start: s.StartTimeout, Stop: s.StopTimeout, Monitor: s.MonitorTimeout}
}

// Policy is the same for the failover.
func (f Failures) Policy() plan.FailurePolicy {
	return plan.FailurePolicy{Threshold: f.Threshold, Within: f.Within, Forget: f.Forget}
}

// usable asks the service's own judge, so that nothing passes here that is
// refused when the agent starts.
func (s *Service) usable() error {
	_, err := service.New(s.Spec(), service.Deps{Device: func(int) (string, error) { return "", nil }})
	return err
}
