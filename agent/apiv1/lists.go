package apiv1

import "slices"

// FillLists replaces every nil list by an empty one, so that JSON readers
// never meet null where a list is documented.
func (s *Status) FillLists() {
	fill(&s.Standby)
	fill(&s.Resources)
	fill(&s.Members)
	fill(&s.Fencing)
	fill(&s.Fences)
	for i := range s.Resources {
		r := &s.Resources[i]
		fill(&r.InSync)
		fill(&r.FrozenReasons)
		fill(&r.Volumes)
		fill(&r.Peers)
		fill(&r.Services)
		fill(&r.Verify.Found)
		fillSides(&r.Sides)
		fill(&r.Kept)
		if r.Verify.State == "" { // not attached here, or a witness
			r.Verify.State, r.Verify.ETAS = VerifyNone, -1
		}
		for j := range r.Volumes {
			fill(&r.Volumes[j].Proven.RegionsAgeS)
		}
	}
	for i := range s.Fencing {
		fill(&s.Fencing[i].Devices)
	}
	for i := range s.Members {
		fill(&s.Members[i].Paths)
		fill(&s.Members[i].Reasons)
	}
}

// FillLists replaces nil lists by empty ones.
func (e *Explanation) FillLists() {
	fill(&e.Why)
	fill(&e.WouldLose)
	fill(&e.Help)
	fillSides(&e.Sides)
}

func fillSides(sides *[]Side) {
	fill(sides)
	for i := range *sides {
		fill(&(*sides)[i].Keep)
		fill(&(*sides)[i].Volumes)
	}
}

func fill[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}

// Resource returns a resource by name, nil when there is none.
func (s *Status) Resource(name string) *Resource {
	for i := range s.Resources {
		if s.Resources[i].Name == name {
			return &s.Resources[i]
		}
	}
	return nil
}

// Witness reports whether the node that tells this status is a witness.
func (s *Status) Witness() bool {
	return slices.ContainsFunc(s.Members, func(m Member) bool { return m.Self && m.Kind == KindWitness })
}
