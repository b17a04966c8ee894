"""What would keep the daemon from its work, found out before it does: from this machine, beside a daemon or before its first start.

Everything is looked at as the daemon would use it, with its own code where there is some. Subjects are looked at side by side, each with a
limit of its own, so that the whole takes seconds when things are away. One that fails hides no other; what rests on it is not checked.
Nothing is changed by it but one tiny object in the CDN's bucket and hidden files under the root, which go again at once. Another subject
is one more line in the `SUBJECTS` of its area.
"""
