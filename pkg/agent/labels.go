package agent

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// lastLabels are the labels that the API server had of pods last, by UID. The sandbox of a pod
// has those with which it was made, and is all that is left of a pod that was deleted by force
// and still sends. The zero value is ready. It belongs to the goroutine that gathers.
type lastLabels struct{ byUID map[string]labels.Set }

// correct gives pods the newest labels that are known. Without the API's, which is the rule for a
// pod that has just begun, and for a static pod, those of the sandbox count.
func (l *lastLabels) correct(pods []localPod) []localPod {
	known := make(map[string]labels.Set, len(pods))
	for i := range pods {
		if pods[i].source == fromAPI {
			known[pods[i].uid] = pods[i].labels
		}
	}
	for i := range pods {
		pod := &pods[i]
		if of, ok := known[pod.uid]; ok {
			pod.labels = of
		} else if of, ok := l.byUID[pod.uid]; ok {
			pod.labels, known[pod.uid] = of, of
		}
	}
	l.byUID = known
	return pods
}

// labelsOf are the labels of Namespaces, by name.
func labelsOf(namespaces []corev1.Namespace) map[string]labels.Set {
	of := make(map[string]labels.Set, len(namespaces))
	for i := range namespaces {
		of[namespaces[i].Name] = namespaces[i].Labels
	}
	return of
}
