//! What is built, from which module at which version, and how. Versions stand here and nowhere else.

/// A Go module that programs are built from.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Names its folder in the cache.
    pub name: &'static str,
    pub path: &'static str,
    /// With the leading `v`.
    pub version: &'static str,
    /// The `h1:` hash of the module's content, as in go.sum. Its own go.sum vouches for what it requires.
    pub sum: &'static str,
    /// The version of modules that it requires at `v0.0.0` and replaces by folders that its published form lacks.
    pub replaced_version: &'static str,
}

/// Kubernetes' release; [`KUBERNETES`] is at `v1.` of it, its parts at `v0.` of it.
pub const KUBERNETES_VERSION: &str = "v1.37.2";

pub const KUBERNETES: Module = Module {
    name: "kubernetes",
    path: "k8s.io/kubernetes",
    version: KUBERNETES_VERSION,
    sum: "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=",
    replaced_version: "v0.37.2",
};

pub const ETCD: Module = Module {
    name: "etcd",
    path: "go.etcd.io/etcd/server/v3",
    version: "v3.7.3",
    sum: "h1:KcTZ/aEZrOiQe0/kdr7iYYcvyfbEoOwDOacHkz8xwZc=",
    replaced_version: "v3.7.3",
};

pub const CONTAINERD: Module = Module {
    name: "containerd",
    path: "github.com/containerd/containerd/v2",
    version: "v2.4.2",
    sum: "h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw=",
    replaced_version: "v2.4.2",
};

pub const RUNC: Module = Module {
    name: "runc",
    path: "github.com/opencontainers/runc",
    version: "v1.5.2",
    sum: "h1:eUUowc2WJCnFYzI87C1WqRcu356Dk/wsoi90y+2wEfE=",
    replaced_version: "v1.5.2",
};

pub const COREDNS: Module = Module {
    name: "coredns",
    path: "github.com/coredns/coredns",
    version: "v1.15.0",
    sum: "h1:OBT+OEyHVdUiVxPhrNlC5XZVq3RkSxzQXfZQ76gm5ck=",
    replaced_version: "v1.15.0",
};

/// A program, and the command that builds it.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    pub module: &'static Module,
    pub package: &'static str,
    pub kind: Kind,
    pub tags: &'static str,
    /// What the linker puts into variables: `NAME=VALUE`.
    pub variables: &'static [(&'static str, &'static str)],
    /// Statically linked C, for what has no Go library.
    pub c: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `main` package.
    Main,
    /// The tests of a package, as a program.
    Tests,
}

const COMPONENT_VERSION: &[(&str, &str)] = &[
    ("k8s.io/component-base/version.gitVersion", KUBERNETES_VERSION),
    ("k8s.io/component-base/version.gitMajor", "1"),
    ("k8s.io/component-base/version.gitMinor", "37"),
    ("k8s.io/component-base/version.gitTreeState", "clean"),
    ("k8s.io/client-go/pkg/version.gitVersion", KUBERNETES_VERSION),
    ("k8s.io/client-go/pkg/version.gitMajor", "1"),
    ("k8s.io/client-go/pkg/version.gitMinor", "37"),
    ("k8s.io/client-go/pkg/version.gitTreeState", "clean"),
];

const fn kubernetes(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module: &KUBERNETES,
        package,
        kind: Kind::Main,
        tags: "",
        variables: COMPONENT_VERSION,
        c: false,
    }
}

const fn containerd(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module: &CONTAINERD,
        package,
        kind: Kind::Main,
        tags: "no_btrfs,no_devmapper,no_zfs,netgo,osusergo",
        variables: &[(
            "github.com/containerd/containerd/v2/version.Version",
            CONTAINERD.version,
        )],
        c: false,
    }
}

pub const KUBE_APISERVER: Program = kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver");
pub const KUBECTL: Program = kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl");
pub const KUBE_CONTROLLER_MANAGER: Program = kubernetes(
    "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
);
pub const KUBE_SCHEDULER: Program = kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler");
pub const KUBELET: Program = kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet");
pub const KUBE_PROXY: Program = kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy");
pub const AGNHOST: Program = kubernetes("agnhost", "k8s.io/kubernetes/test/images/agnhost");
pub const GINKGO: Program = kubernetes("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo");
pub const E2E_TEST: Program = Program {
    kind: Kind::Tests,
    ..kubernetes("e2e.test", "k8s.io/kubernetes/test/e2e")
};
pub const ETCD_SERVER: Program = Program {
    name: "etcd",
    module: &ETCD,
    package: "go.etcd.io/etcd/server/v3",
    kind: Kind::Main,
    tags: "",
    variables: &[],
    c: false,
};
pub const CONTAINERD_SERVER: Program =
    containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd");
pub const CONTAINERD_SHIM: Program = containerd(
    "containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
);
pub const CTR: Program = containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr");
/// With seccomp, as pods of the restricted security standard ask for it.
pub const RUNC_PROGRAM: Program = Program {
    name: "runc",
    module: &RUNC,
    package: "github.com/opencontainers/runc",
    kind: Kind::Main,
    tags: "seccomp,netgo,osusergo",
    variables: &[("main.version", RUNC.version)],
    c: true,
};
pub const COREDNS_SERVER: Program = Program {
    name: "coredns",
    module: &COREDNS,
    package: "github.com/coredns/coredns",
    kind: Kind::Main,
    tags: "",
    variables: &[],
    c: false,
};

/// Programs that are wanted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// An API server without nodes.
    ApiServer,
    /// A cluster.
    Cluster,
    /// Upstream's end-to-end tests.
    Upstream,
    /// The Service proxy that Weir replaces, for comparisons.
    KubeProxy,
}

impl Group {
    /// In the order in which they are built: the first of a module compile what the others share.
    #[must_use]
    pub fn programs(self) -> Vec<&'static Program> {
        match self {
            Self::ApiServer => vec![&KUBE_APISERVER, &ETCD_SERVER, &KUBECTL],
            Self::Cluster => vec![
                &KUBE_APISERVER,
                &ETCD_SERVER,
                &KUBECTL,
                &KUBE_CONTROLLER_MANAGER,
                &KUBE_SCHEDULER,
                &KUBELET,
                &CONTAINERD_SERVER,
                &CONTAINERD_SHIM,
                &CTR,
                &RUNC_PROGRAM,
                &AGNHOST,
                &COREDNS_SERVER,
            ],
            Self::Upstream => vec![&E2E_TEST, &GINKGO],
            Self::KubeProxy => vec![&KUBE_PROXY],
        }
    }
}
